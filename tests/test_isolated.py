"""Files of other repositories: each has its own imports, from any thread and at any time."""

import importlib
import sys
import threading

import pytest

from utils import errors
from utils.isolated import find_root, load_isolated

FILE = """
import importlib
import utils.names
import utils.names as names
from utils import names as same
from utils.names import NAME
from .sibling import SIBLING

def late():
    from utils.late import LATE
    return LATE

def by_importlib():
    return importlib.import_module("utils.late").LATE

def missing():
    import utils.nothing

def ours():
    from utils.errors import UserError
"""


def write(root, name):
    """A repository with modules named as this library's, which say whose they are."""
    files = {
        "utils/__init__.py": "",
        "utils/names.py": f"NAME = {name!r}",
        "utils/late.py": "from utils.deep.nested import LATE",
        "utils/deep/nested.py": "from ..names import NAME as LATE",  # a folder without __init__
        "agents/__init__.py": "raise ImportError('of another agent, not of this one')",
        "agents/agent.py": FILE,
        "agents/sibling.py": f"SIBLING = {name!r}",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root / "agents" / "agent.py"


@pytest.fixture
def two(tmp_path):
    """The modules of two repositories, loaded one after the other."""
    paths = [write(tmp_path / name, name) for name in ("one", "two")]
    for path in paths:  # which a relative import executes
        (path.parent / "__init__.py").write_text("")
    return [load_isolated(path) for path in paths]


def test_equally_named_modules_do_not_meet(two):
    for module, name in zip(two, ("one", "two"), strict=True):
        assert module.NAME == module.SIBLING == name
        assert module.utils.names is module.names is module.same
        assert name == module.names.NAME


def test_an_import_inside_a_function_finds_its_own_repository(two):
    for module, name in zip(two, ("one", "two"), strict=True):
        assert module.late() == module.by_importlib() == name


def test_this_librarys_modules_stay_its_own(two):
    assert sys.modules["utils.errors"] is errors
    assert importlib.import_module("utils.errors") is errors
    for module in two:
        with pytest.raises(ModuleNotFoundError, match=r"^No module named 'utils.errors'$"):
            module.ours()
        with pytest.raises(ModuleNotFoundError, match=r"^No module named 'utils.nothing'$"):
            module.missing()


def test_threads_import_at_the_same_time_each_their_own(two):
    def theirs(module, name):
        for _ in range(300):
            sys.modules.pop(name, None)
            found.add((module.root.name, module.late()))

    def ours():
        for _ in range(300):
            sys.modules.pop("utils.output", None)
            found.add(("ours", importlib.import_module("utils.output").__file__))

    kept, found = importlib.import_module("utils.output"), set()
    threads = [threading.Thread(target=ours)]
    for module in two:
        late = f"{module.repository.name}.utils.late"
        threads.append(threading.Thread(target=theirs, args=(module, late)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.modules["utils.output"] = kept
    assert found == {("one", "one"), ("two", "two"), ("ours", kept.__file__)}


def test_its_sources_are_what_was_imported(two):
    module = two[0]
    began = {"agents/agent.py", "agents/__init__.py", "agents/sibling.py"}
    began |= {"utils/__init__.py", "utils/names.py"}
    assert module.sources().keys() == began
    module.late()
    assert module.sources().keys() == began | {"utils/late.py", "utils/deep/nested.py"}
    assert module.sources()["utils/names.py"] == b"NAME = 'one'"


def test_other_agents_of_the_repository_are_left_alone(tmp_path):
    path = write(tmp_path, "one")
    path.write_text("from utils.names import NAME")
    assert load_isolated(path).NAME == "one"
    path.write_text("from agents.sibling import SIBLING")
    with pytest.raises(ImportError, match="of another agent"):
        load_isolated(path)


def test_a_file_is_executed_once_until_it_changes(tmp_path):
    path = write(tmp_path, "one")
    path.write_text("VALUE = object()")
    assert load_isolated(path) is load_isolated(path)
    first = load_isolated(path)
    path.write_text("VALUE = object()  # another")
    assert load_isolated(path) is not first


def test_the_root_is_where_most_imports_are_found(tmp_path):
    path = write(tmp_path / "one", "one")
    assert find_root(path) == tmp_path / "one"
    alone = tmp_path / "alone" / "agent.py"
    alone.parent.mkdir()
    alone.write_text("import jax\nimport yaml_that_nobody_has\n")
    assert find_root(alone) == alone.parent


@pytest.mark.parametrize("content", [None, "setup.py"])
def test_a_folder_named_as_a_package_is_no_module(tmp_path, content):
    path = write(tmp_path, "one")
    (tmp_path / "flax").mkdir()
    (tmp_path / "flax" / (content or "log.txt")).write_text("")
    path.write_text("import flax.struct\nfrom utils import names\n")
    assert load_isolated(path).flax.struct.PyTreeNode
