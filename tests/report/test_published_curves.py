import fnmatch
from pathlib import Path

import numpy as np
import pytest

from utils.envs import tasks
from utils.errors import UserError
from utils.report.published import curves
from utils.report.published.curves import PublishedCurve, curve, legend, methods, parse_with
from utils.report.published.standing import standing

FOLDER = Path(curves.__file__).parent
DOUBLE = "cube-double-play-singletask-task2-v0"


def arrays(release):
    return np.load(FOLDER / f"{release}.npz", allow_pickle=False)


# The files ----------------------------------------------------------------------------------------


def test_every_release_is_there_with_its_copyright_and_where_it_comes_from():
    text = " ".join((FOLDER / "LICENSES.txt").read_text().split())
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(curves._releases())
    for release, about in curves._releases().items():
        licence, source = (str(arrays(release)[key]) for key in ("licence", "source"))
        assert licence.startswith("MIT, ")
        assert licence.removeprefix("MIT, ") in text
        assert source.endswith(about["paper"])
        repository, files, rest = source.split(maxsplit=2)
        assert f"{repository}, {files} {rest}" in text
    assert "Permission is hereby granted" in text
    assert "THE SOFTWARE IS PROVIDED" in text


def test_the_curves_have_the_means_that_the_paper_prints():
    """The bars of QAM's chart: all 50 tasks at the end of the offline phase."""
    everything = arrays("qam")["tasks"].tolist()
    printed = {
        "QAM-E": 46,
        "QAM-F": 45,
        "QAM": 44,
        "QSM": 42,
        "ReBRAC": 40,
        "DSRL": 38,
        "CGQL-L": 37,
        "DAC": 36,
        "FQL": 36,
        "BAM": 35,
        "CGQL-M": 35,
        "IFQL": 34,
        "FEdit": 33,
        "CGQL": 30,
        "FBRAC": 11,
        "FAWAC": 8,
    }
    for method, value in printed.items():
        found = curve("qam", method, everything)
        at = found.steps.tolist().index(found.offline_end)
        # 34.50 to 34.60 and 35.50 to 35.60 are printed as the next number.
        assert found.mean[at] == pytest.approx(value, abs=0.501)
        single = [curve("qam", method, task).mean[at] for task in everything]
        assert np.mean(single) == pytest.approx(found.mean[at], abs=1e-3)


def test_differences_of_tasks_are_those_that_the_release_states():
    data = arrays("qam")
    for i, task in enumerate(data["tasks"].tolist()):
        texts = curve("qam", "QAM", task).differences
        assert ("chunks of 5 actions" in texts) == (data["horizon"][i] == 5)
        assert ("rewards -1 or 0" in texts) == data["sparse"][i]
        assert ("100M transitions" in texts) == data["dataset_100m"][i]
        assert "10 critics" in texts
    for release, about in curves._releases().items():
        names = [str(x) for part in about["arrays"] for x in arrays(release)[part["tasks"]]]
        for part in about.get("differences", ()):
            assert set(part.get("methods", ())) <= set(methods(release))
            for pattern in part.get("tasks", ()):
                assert fnmatch.filter(names, pattern)


# Curves -------------------------------------------------------------------------------------------


def test_a_curve_of_seeds_has_their_values_and_the_mean():
    found = curve("qam", "FQL", DOUBLE)
    data = arrays("qam")
    index = data["methods"].tolist().index("FQL"), data["tasks"].tolist().index(DOUBLE)
    assert found.steps.tolist() == list(range(50_000, 1_500_001, 50_000))
    assert found.values.shape == (12, 30)
    np.testing.assert_allclose(found.values, 100 * data["success"][index], atol=1e-4)
    assert (found.values % 2 == 0).all()  # of 50 episodes, without digits that float32 lacks
    np.testing.assert_allclose(found.mean, found.values.mean(axis=0))
    assert (found.bounds, found.seeds) == (None, 12)
    assert found.offline_steps == found.offline_end == 1_000_000
    assert found.legend == "FQL of qam (12 seeds, 10 critics, chunks of 5 actions)"


def test_a_curve_of_means_has_their_bounds_and_begins_with_what_was_measured():
    found = curve("qc", "QC-FQL", DOUBLE)
    assert found.steps.tolist() == list(range(100_000, 2_000_001, 100_000))
    assert (found.values, found.seeds) == (None, 4)
    assert (found.bounds[0] <= found.mean + 1e-3).all()
    assert (found.mean <= found.bounds[1] + 1e-3).all()
    # The paper's offline column has the evaluation before the one that ends the phase.
    assert (found.offline_steps, found.offline_end) == (1_000_000, 900_000)
    assert found.legend == "QC-FQL of qc (4 seeds, chunks of 5 actions)"
    assert curve("qc", "FQL-n", DOUBLE).differences == ("5-step returns",)
    assert curve("qc", "FQL", DOUBLE).differences == ()
    assert curve("qc", "QC", "scene-play-singletask-task1-v0").differences == (
        "chunks of 5 actions",
        "rewards -1 or 0",
    )


@pytest.mark.parametrize(
    ("release", "method", "steps"),
    [("qam", "RLPD", (50_000, 500_000)), ("qc", "RLPD-AC", (100_000, 1_000_000))],
)
def test_steps_of_a_method_without_an_offline_phase_count_from_its_own_beginning(
    release, method, steps
):
    found = curve(release, method, DOUBLE)
    assert (found.steps[0], found.steps[-1]) == steps
    assert np.isfinite(found.mean).all()
    assert (found.offline_steps, found.offline_end) == (0, None)
    assert found.differences[-1] == "no offline phase"


def test_a_default_task_has_the_curve_of_its_number():
    default = curve("qam", "QAM", tasks.resolve("cube-double-play"))
    assert default.group == DOUBLE
    np.testing.assert_array_equal(default.values, curve("qam", "QAM", DOUBLE).values)


def test_a_group_of_tasks_has_the_curve_that_was_released_for_all_of_it():
    group = tasks.groups()["puzzle-4x4-play"]
    found = curve("qam", "QAM-E", group)
    assert (found.group, found.values.shape) == ("puzzle-4x4-play", (12, 30))
    assert found.differences[1:] == ("chunks of 5 actions", "rewards -1 or 0", "100M transitions")
    assert found.mean[19] == pytest.approx(39, abs=0.5)
    assert curve("qam", "QAM-E", group[:4]) is None
    single = [curve("qam", "QAM-E", task) for task in group]
    np.testing.assert_allclose(found.mean, np.mean([one.mean for one in single], axis=0), atol=1e-3)
    # Rows are not the same seed in two tasks, so this group's seeds are not means of rows.
    assert not np.allclose(found.values, np.mean([one.values for one in single], axis=0), atol=1)
    found = curve("qc", "QC", tasks.groups()["puzzle-3x3-play"])
    assert (found.group, found.differences) == (
        "puzzle-3x3",
        ("chunks of 5 actions", "rewards -1 or 0"),
    )


def test_other_data_and_variants_have_curves_too():
    assert curve("qam", "FQL", "cube-double-noisy-singletask-task1-v0").values.shape == (12, 30)
    assert curve("qam", "QAM-E (T=1)", DOUBLE).values.shape == (12, 30)


def test_what_was_not_released_has_no_curve():
    assert curve("qam", "FQL", "pen-cloned-v1") is None
    assert curve("qam", "QAM", "cube-double-noisy-singletask-task1-v0") is None
    assert curve("qam", "QAM-E (T=1)", "cube-double-play-singletask-task1-v0") is None
    assert curve("qc", "QC", "/nowhere/my_task.py") is None


def test_a_legend_says_in_how_many_panels_a_difference_holds():
    names = ("cube-double-play", "antmaze-large-navigate", "puzzle-4x4-play")
    found = [curve("qam", "FQL", tasks.resolve(name)) for name in names]
    assert legend(found) == (
        "FQL of qam (12 seeds, 10 critics, chunks of 5 actions in 2 of 3, rewards -1 or 0 in 1 of "
        "3, 100M transitions in 1 of 3)"
    )
    assert legend([curve("qc", "FQL", DOUBLE)]) == "FQL of qc (4 seeds)"


# --with -------------------------------------------------------------------------------------------


def test_names_of_curves_are_parsed():
    assert parse_with("qam:FQL, qc:qc-fql,QAM:fql,qam:QAM-E (T=1)") == (
        ("qam", "FQL"),
        ("qc", "QC-FQL"),
        ("qam", "QAM-E (T=1)"),
    )


def test_no_name_of_a_method_could_be_taken_for_two():
    for release in curves._releases():
        names = methods(release)
        assert not [name for name in names if "," in name or ":" in name or name != name.strip()]
        assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qan:FQL", r"unknown release in 'qan:FQL'; did you mean qam\? known are qam, qc, dqc"),
        ("qam:FLQ", r"unknown method of qam in 'qam:FLQ'; did you mean FQL.*\? known are FBRAC, "),
        ("qam:FQL,qc", r"--with='qc' names no method; give qc:METHOD with one of IQL, ReBRAC, "),
        ("qam:FQL,", "unknown release in ''; known are qam, qc, dqc"),
        ("dqc:DQC h=25 h_a=5", "curves of dqc cannot stand beside a run: .*goal-conditioned"),
    ],
)
def test_names_of_no_curve_are_refused_with_the_nearest(text, message):
    with pytest.raises(UserError, match=message):
        parse_with(text)


def test_goal_conditioned_curves_are_refused_for_every_task():
    with pytest.raises(UserError, match="goal-conditioned"):
        curve("dqc", "QC h=5", "cube-triple-play-singletask-task1-v0")
    with pytest.raises(UserError, match="did you mean QSM or QAM"):
        curve("qam", "QMA", DOUBLE)


# Standing -----------------------------------------------------------------------------------------


def made(values=((10, 20, 30), (20, 40, 30)), bounds=None, offline_steps=300):
    values = np.array(values, float)
    return PublishedCurve(
        release="ours",
        method="Ours",
        group="task",
        paper="",
        steps=np.array([100, 200, 400]),
        mean=values.mean(axis=0),
        values=None if bounds is not None else values,
        bounds=bounds,
        seeds=len(values),
        offline_steps=offline_steps,
        offline_end=200,
        differences=("9 critics",),
    )


def test_a_run_stands_among_the_published_seeds_at_the_last_step_that_both_have():
    found = standing({100: 99.0, 200: 30.0, 250: 0.0}, made())
    assert (found.step, found.own, found.percentile, found.between) == (200, 30, 50, None)
    assert found.text == (
        "your mean at 200, 30.0, stands at the 50th percentile of the 2 published seeds at 200 "
        "(mean 30.0): Ours of ours (2 seeds, 9 critics)"
    )
    assert standing({100: 99.0, 150: 30.0}, made()).step == 100  # none of theirs is interpolated
    assert standing({200: 50.0}, made()).percentile == 100
    assert standing({200: 1.0}, made()).percentile == 0
    assert standing({200: 20.0}, made()).percentile == 25  # half of one equal seed
    assert standing({100: 20 + 1e-12}, made()).percentile == 75  # equal but for rounding


def test_published_values_are_interpolated_only_between_evaluations():
    found = standing({150: 30.0}, made())
    assert (found.step, found.between, found.mean) == (150, (100, 200), 22.5)
    assert found.published.tolist() == [15, 30]
    assert "at 150 (mean 22.5, interpolated between their evaluations at 100 and 200)" in found.text
    assert standing({50: 30.0}, made()) is None
    assert standing({}, made()) is None
    assert standing({500: 30.0}, made(), online_start=300) is None


def test_runs_are_compared_within_a_phase_that_both_have_begun_at_the_same_step():
    online = {200: 1.0, 400: 30.0}
    assert standing(online, made(), online_start=300).step == 400
    assert standing(online, made()).step == 200  # offline all the time
    assert standing(online, made(), online_start=250).step == 200
    assert standing(online, made(), online_start=150) is None
    assert standing({400: 30.0}, made()) is None
    assert standing(online, made(offline_steps=0), online_start=0).step == 400
    assert standing(online, made(offline_steps=0)) is None  # theirs were online from the beginning
    # Between the last evaluation of a phase and the first of the next, nothing is known.
    assert standing({250: 30.0}, made()) is None
    assert standing({350: 30.0}, made(), online_start=300) is None


def test_without_seeds_a_run_stands_beside_the_interval_of_the_mean():
    bounds = np.array([[5.0, 20.0, 20.0], [25.0, 40.0, 40.0]])
    texts = [standing({200: own}, made(bounds=bounds)).text for own in (10.0, 30.0, 50.0)]
    assert [text.split("is ")[1].split(" ")[0] for text in texts] == ["below", "within", "above"]
    assert "is within the 95 % interval 20.0 to 40.0 of the mean of the 2 published" in texts[1]
    assert standing({200: 30.0}, made(bounds=bounds)).percentile is None


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0th"), (3, "3rd"), (11, "11th"), (12, "12th"), (21, "21st")]
)
def test_percentiles_are_ordinals(number, text):
    values = np.arange(100.0)[:, None] + np.zeros(3)
    assert f" {text} percentile" in standing({200: number - 0.5}, made(values)).text
