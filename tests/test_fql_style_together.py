"""Agents of two repositories in one process, whose modules have equal names and differ."""

import contextlib
import importlib
import re
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from tests import toys
from tests.parity.fql_style import Subject
from tests.report import run_folders
from tests.test_fql_style import LAB, edit
from utils.report.report import Report
from utils.runs.folder import RunFolder

OWNERS = (1, 2)
OWN_CONFIG = 'from utils.owner import OWNER\n\n        config["owner"] = OWNER\n        rng, init'


def write_repository(folder, owner):
    """A copy of the lab whose modules have its owner's number in what they compute.

    Returns:
        An agent's file, which imports `utils.networks` at once, `utils.late` when its loss is
        traced, and `utils.owner` when it is created.
    """
    shutil.copytree(LAB, folder, ignore=shutil.ignore_patterns("__pycache__"))
    edit(folder / "utils" / "late.py", ("(x**2).mean()", f"{owner} + 0 * x.mean()"))
    edit(folder / "utils" / "networks.py", ("return Perceptron", f"return {owner} * Perceptron"))
    (folder / "utils" / "owner.py").write_text(f"OWNER = {owner}\n")
    return edit(folder / "agents" / "flow.py", ("rng, init", OWN_CONFIG))


@contextlib.contextmanager
def importing_ours():
    """Import this library's modules of the same names all the time, in another thread.

    Yields:
        The files that they came from.
    """
    names = ("utils.networks", "utils.losses")
    kept = {name: importlib.import_module(name) for name in names}
    found, ended = set(), threading.Event()

    def work():
        while not ended.wait(0.001):
            for name in names:
                sys.modules.pop(name, None)
                found.add(importlib.import_module(name).__file__)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        sys.modules.update(kept)
        for name, module in kept.items():
            setattr(sys.modules["utils"], name.split(".")[1], module)
    assert found == {module.__file__ for module in kept.values()}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repositories")
    return [write_repository(folder / f"repository_{owner}", owner) for owner in OWNERS]


def losses(subject):
    """What its loss says of itself on a batch, and who its agent says is its owner."""
    agent = jax.tree.map(lambda leaf: leaf[0], subject.start(0)[1].agents)
    found = jax.jit(agent.evaluate_loss)(subject.example, jax.random.key(0))
    return found, agent.network.agent.config["owner"]


def test_their_imports_do_not_meet_while_both_are_traced_and_ours_imported(paths):
    settings = toys.SHALLOW | {"batch_size": 16}
    with importing_ours():
        subjects = [Subject(path, settings, rows=300) for path in paths]
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(losses, subjects))
    for (metrics, owner), number in zip(found, OWNERS, strict=True):
        assert owner == metrics["actor/flow_loss"] == number
    first, second = (metrics["critic/q_mean"] for metrics, _ in found)
    np.testing.assert_allclose(second, 2 * first, rtol=1e-5)


def test_a_report_tells_their_equally_named_agents_apart(paths, tmp_path):
    for number, path in zip(OWNERS, paths, strict=True):
        folder = run_folders.make_run(tmp_path / f"run_{number}", agent="flow", success=[0.2, 0.4])
        sources = toys.load(path).sources
        RunFolder(folder).keep_sources({f"agent/{name}": text for name, text in sources.items()})
        (kept,) = folder.rglob("networks.py")
        assert f"return {number} * Perceptron" in kept.read_text()
    grid = run_folders.grid_of(tmp_path)
    first, second = grid.labels
    assert first != second
    summary = Report(grid).summary
    for label in grid.labels:
        assert re.fullmatch(r"flow, files [0-9a-f]{8}", label)
        assert f"| {label} |" in summary
