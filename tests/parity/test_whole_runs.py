import dataclasses
import shutil

import pytest

from tests.parity.whole_runs import RUNS, Found, row, small_settings, whole_run
from tests.test_fql_style import LAB, edit, lab

GOOD = Found(trains=True, evaluates=True, stopped=1234)


def test_a_row_says_what_holds_of_all_runs_and_the_first_error():
    path = lab("gaussian")
    found = dict.fromkeys(RUNS, GOOD)
    begin = "| lab/agents/gaussian.py | yes"
    assert row(path, found) == f"{begin} | yes | yes, at 1234, 1234, 1234 | yes |  |"
    found["2 seeds"] = Found(trains=True, evaluates=True, error="other numbers")
    found["online"] = Found(error=f"{path}, line 3: a | b")
    assert row(path, found) == f"{begin} | no | no | no | 2 seeds: other numbers |"
    found["2 seeds"] = GOOD
    assert row(path, found).endswith(r"| no | online: gaussian.py, line 3: a \| b |")


def test_small_runs_have_the_settings_that_the_file_has():
    given = {"lr": 1e-3, "alpha": 2.0}
    settings = small_settings(lab("flow"), given)
    assert settings["lr"] == 1e-3
    assert settings["flow_steps"] == 2
    assert "alpha" not in settings


@pytest.mark.slow
def test_a_run_that_depends_on_its_process_does_not_resume_to_the_bit(tmp_path, dataset_dir):
    def found(path):
        settings = small_settings(path, {})
        return whole_run("1 seed", path, settings, dataset_dir, tmp_path / path.stem)

    agents = shutil.copytree(LAB, tmp_path / "lab") / "agents"
    path = shutil.copy(agents / "gaussian.py", agents / "other.py")
    edit(path, ("import functools", "import functools\nimport os"))
    edit(path, ("return loss, info", "return loss * os.getpid(), info"))
    as_it_is = found(agents / "gaussian.py")
    assert as_it_is == dataclasses.replace(GOOD, stopped=as_it_is.stopped)
    assert as_it_is.stopped
    words = "started again, it ends with other numbers"
    assert found(path) == dataclasses.replace(GOOD, stopped=None, error=words)
