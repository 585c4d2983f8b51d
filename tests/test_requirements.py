"""What is installed: the tested versions are within what is asked for, and nothing is forgotten."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]


def requirements(name):
    """What a file asks for, by name; comments and included files are left out."""
    lines = (REPOSITORY / name).read_text().splitlines()
    found = [Requirement(line) for line in lines if re.match(r"\w", line)]
    return [(canonicalize_name(requirement.name), requirement) for requirement in found]


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_every_requirement_has_one_tested_version_that_it_allows(python):
    environment = {"python_version": python}
    tested = {}
    for name, pin in requirements("constraints.txt"):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert name not in tested
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            tested[name] = specifier.version
    for file in ("requirements.txt", "tests/requirements.txt"):
        for name, requirement in requirements(file):
            assert requirement.specifier.contains(tested[name]), name


def test_the_video_extra_is_what_the_tests_install():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (video,) = project["optional-dependencies"]["video"]
    assert Requirement(video) in [
        requirement for _, requirement in requirements("tests/requirements.txt")
    ]
    assert canonicalize_name(Requirement(video).name) not in dict(requirements("requirements.txt"))
