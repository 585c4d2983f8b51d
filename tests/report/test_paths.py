import os

import pytest

from tests.report.run_folders import make_run
from utils.errors import UserError
from utils.report.paths import expand, load, read_all


def test_a_text_file_names_folders_or_commands(tmp_path):
    listed = tmp_path / "folders.txt"
    listed.write_text("# two\nexp/a/sd000\n\nexp/with space/sd000\n")
    assert expand(listed) == ["exp/a/sd000", "exp/with space/sd000"]
    commands = tmp_path / "sweep.txt"
    commands.write_text(
        "# made by hand\n"
        "python main.py --env_name=cube --run_group=one '--agent.dims=(1, 2)'\n"
        "python main.py --env_name=scene --run_group=one\n"
        "python online_main.py --save_dir 'my runs' -run_group two --run_group=three\n"
        "python /fork/main.py\n"
    )
    assert expand(commands) == ["exp/one", "my runs/three", "exp/Debug"]
    assert expand(tmp_path) == [str(tmp_path)]
    assert expand("exp/*") == ["exp/*"]


def test_a_sweep_that_was_started_names_the_folder_of_each_command(tmp_path):
    commands, folders = tmp_path / "sweep.txt", tmp_path / "sweep.jobs" / "folders.txt"
    commands.write_text("python main.py --run_group=one\n")
    folders.parent.mkdir()
    folders.write_text("exp/one/cube_a_1234/sd000\n")
    os.utime(commands, (100, 100))
    assert expand(commands) == ["exp/one/cube_a_1234/sd000"]
    os.utime(folders, (50, 50))
    assert expand(commands) == ["exp/one"]


def test_runs_are_read_from_everywhere_and_the_others_named(tmp_path):
    make_run(tmp_path / "exp/a/run/sd000")
    damaged = make_run(tmp_path / "exp/b/run/sd000", agent="fql")
    (damaged / "config.json").write_text("{")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/exp/a/run/sd000\n{tmp_path}/exp/none\n")
    records, passed_over = read_all([tmp_path / "list.txt", tmp_path / "exp"])
    assert len(records) == 2
    assert passed_over[0] == f"{tmp_path}/exp/none: no run is there"
    assert "config.json is damaged" in passed_over[1]
    assert len(passed_over) == 2


def test_no_run_at_all_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no run is there; give the folders that"):
        read_all([tmp_path])


def test_files_that_name_nothing_are_refused_in_one_line(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match="neither a folder nor a file that names some"):
        expand(file)
    file.write_text("python main.py --run_group='a\n")
    with pytest.raises(UserError, match="a line that no shell takes"):
        expand(file)


def test_a_notebook_gets_the_runs_of_a_sweeps_file(tmp_path, monkeypatch):
    run = make_run(tmp_path / "exp/one/cube/sd000")
    (tmp_path / "sweep.txt").write_text(f"python main.py --save_dir={tmp_path}/exp --run_group=one")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert {row["folder"] for row in load(tmp_path / "sweep.txt")} == {str(run)}
