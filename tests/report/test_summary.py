import json

import pytest

from tests.report.run_folders import make_run
from utils.errors import UserError
from utils.report.summary import write_score_and_curves


def test_score_and_curves_of_a_run_in_one_call(tmp_path):
    run = make_run(tmp_path / "run")
    protocol = {"metric": "success", "evaluations": 2}
    line = write_score_and_curves(run, online_start=None, protocol=protocol, step=400)
    assert line == (
        "score: success 81.0 % (mean of the last 2 evaluations at 300, 400; 2 seeds, std 1.0)"
    )
    written = json.loads((run / "score.json").read_text())
    assert (written["line"], written["step"]) == (line, 400)
    assert written["mean"] == pytest.approx(81.0)
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_online_run_has_both_scores(tmp_path):
    run = make_run(tmp_path / "run")
    line = write_score_and_curves(run, online_start=200, protocol=None, step=400)
    assert line.startswith("score: success 51.0 -> 91.0 % (offline at 200 -> online at 400;")


def test_no_score_is_left_where_the_curves_fail(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    (run / "train.csv").write_text("a,b\n1\n")
    with pytest.raises(UserError, match=r"train\.csv is damaged"):
        write_score_and_curves(run, online_start=None, protocol=None, step=400)
    assert not (run / "score.json").exists()
