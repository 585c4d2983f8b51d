"""What holds for the source as a whole: sizes, attributes, directions of imports, names."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

from tests import toys

REPOSITORY = Path(__file__).parents[1]
ENTRY_POINTS = ("main.py", "online_main.py")
GROUND = {
    "__init__",
    "checkpoints",
    "compilation_cache",
    "cores",
    "damage",
    "devices",
    "downloads",
    "errors",
    "files",
    "frames",
    "host_memory",
    "isolated",
    "metrics",
    "output",
    "progress_bar",
    "python_files",
}
# A room imports from lower floors only, and from itself.
FLOORS = {"ground": 0, "envs": 1, "report": 2, "engine": 2, "runs": 3, "programs": 4}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
MOST_LINES = 250
INHERITED = {
    "_Arm._renderer",
    "_Arm._mjcf_model",
    "_Arm._never_compiled",
}  # from OGBench's own environments


def sources():
    """Text by path of the library, the agents and the entry points."""
    paths = [REPOSITORY / name for name in ENTRY_POINTS]
    for folder in ("agents", "utils"):
        paths += sorted((REPOSITORY / folder).rglob("*.py"))
    return {str(path.relative_to(REPOSITORY)): path.read_text() for path in paths}


SOURCES = sources()
UTILS = {path: text for path, text in SOURCES.items() if path.startswith("utils/")}


@functools.cache
def parsed(text):
    return ast.parse(text)


# --- Classes --------------------------------------------------------------------------------------


@functools.cache
def classes(text):
    return [node for node in ast.walk(parsed(text)) if isinstance(node, ast.ClassDef)]


def long_classes(text):
    """Names of the classes that have too many lines."""
    return [node.name for node in classes(text) if node.end_lineno - node.lineno + 1 > MOST_LINES]


@functools.cache
def _assigned(function):
    """Names of the attributes of `self` that a method assigns."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def _begun(node):
    """Names of the attributes that a class, without its bases, begins with."""
    begun = {
        part.target.id
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            begun |= _assigned(part)
    return begun


def late_attributes(text, library=()):
    """Attributes that a method assigns and `__init__`, or that of a base, does not.

    Args:
        text: The source.
        library: Other sources, in which bases are looked up.
    """
    known = {node.name: node for other in (*library, text) for node in classes(other)}

    def begun(node):
        bases = (ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases)
        return _begun(node).union(*(begun(known[name]) for name in bases if name in known))

    return [
        f"{node.name}.{name}"
        for node in classes(text)
        for method in node.body
        if isinstance(method, ast.FunctionDef)
        for name in sorted(_assigned(method) - begun(node))
    ]


@pytest.mark.parametrize("path", SOURCES)
def test_no_class_is_long_and_every_attribute_is_born_in_init(path):
    assert long_classes(SOURCES[path]) == []
    late = late_attributes(SOURCES[path], SOURCES.values())
    assert not set(late) - INHERITED


def test_the_checks_of_classes_see_what_they_look_for():
    body = "\n".join(f"    x{i} = {i}" for i in range(MOST_LINES))
    assert long_classes(f"class Long:\n{body}") == ["Long"]
    assert long_classes(f"class Short:\n{body[:-12]}") == []
    text = (
        "class A:\n"
        "    def __init__(self):\n"
        "        self.a = self.b = 1\n"
        "    def later(self):\n"
        "        self.a += 1\n"
        "        self.b, self.c = 2, 3\n"
        "class B(A):\n"
        "    d: int = 0\n"
        "    def __enter__(self):\n"
        "        self.a = self.d = 1\n"
        "        with open('f') as self.e:\n"
        "            pass\n"
    )
    assert late_attributes(text) == ["A.c", "B.e"]


# --- Imports --------------------------------------------------------------------------------------


def module_name(path):
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in SOURCES}


def imported(text, modules=MODULES):
    """Names of the modules that a text imports, at any level; the repository's by their file."""
    found = set()
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in modules else node.module)
    return found


GRAPH = {module_name(path): imported(text) for path, text in SOURCES.items()}


def room(name):
    """The room of a module of utils."""
    parts = name.split(".")[1:]
    if not parts or parts[0] in GROUND:
        return "ground"
    if not any(other.startswith(f"utils.{parts[0]}.") for other in MODULES):
        return "engine"
    return parts[0] if parts[0] in FLOORS else "programs"


def wrong_way(graph):
    """Imports (from, to) that lead to a room that is not below, or out of utils."""
    wrong = []
    for name, others in graph.items():
        for other in others:
            top = other.split(".")[0]
            if name.startswith("utils"):
                if top in ("agents", "main", "online_main", "tests"):
                    wrong.append((name, other))
                if top == "utils":
                    here, there = room(name), room(other)
                    if here == "programs" and there == "programs":
                        same = name.split(".")[1] == other.split(".")[1]
                    else:
                        same = here == there
                    if not same and FLOORS[there] >= FLOORS[here]:
                        wrong.append((name, other))
            elif name.startswith("agents") and top in ("main", "online_main", "tests"):
                wrong.append((name, other))
    return wrong


def circles(graph):
    """Modules that import each other in a circle."""
    remaining = {name: others & set(graph) for name, others in graph.items()}
    while True:
        leaves = {name for name, others in remaining.items() if not others}
        if not leaves:
            return set(remaining)
        remaining = {
            name: others - leaves for name, others in remaining.items() if name not in leaves
        }


def reached(graph, name):
    """All modules that importing one imports, as far as the graph knows."""
    found, todo = set(), {name}
    while todo:
        one = todo.pop()
        found.add(one)
        todo |= graph.get(one, set()) - found
    return found


def test_imports_lead_from_entry_points_to_agents_to_utils_and_down_its_floors():
    assert wrong_way(GRAPH) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circles(GRAPH) == set()


def test_agents_import_neither_data_nor_runs():
    for name, others in GRAPH.items():
        if name.startswith("agents."):
            rooms = {room(other) for other in others if other.startswith("utils")}
            assert rooms <= {"ground", "engine"}, name


def test_environments_need_no_engine():
    names = [name for name in GRAPH if name.startswith("utils.envs.")]
    assert len(names) > 5
    for name in [*names, "utils.env_workers"]:
        tops = {other.split(".")[0] for other in reached(GRAPH, name)}
        assert not tops & JAX, name


def test_the_checks_of_imports_see_what_they_look_for():
    text = "def f():\n    from utils.runs import run, unknown\n    import agents.deflow\n"
    assert imported(text) == {"utils.runs.run", "utils.runs", "agents.deflow"}
    good = {"utils.runs.run": {"utils.report.csv_log", "utils.training", "jax"}}
    assert wrong_way(good) == []
    for name, other in (
        ("utils.training", "utils.runs.run"),
        ("utils.report.scores", "utils.training"),
        ("utils.envs.tasks", "utils.datasets"),
        ("utils.files", "utils.report.csv_log"),
        ("utils.runs.run", "utils.collect.workers"),
        ("utils.agent", "agents"),
        ("agents.deflow", "main"),
    ):
        assert wrong_way({name: {other}}) == [(name, other)]
    graph = {"a": {"b"}, "b": {"c", "jax"}, "c": {"b"}, "d": set()}
    assert circles(graph) >= {"b", "c"}
    assert circles({"a": {"b"}, "b": {"jax"}}) == set()
    assert reached(graph, "a") == {"a", "b", "c", "jax"}


# --- Sentences ------------------------------------------------------------------------------------


def message_parts(node, strings):
    """Constant parts of a message in order, with None for each value put in.

    Args:
        node: The expression.
        strings: Texts by the names of variables that hold them.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in message_parts(value, strings)]
    if isinstance(node, ast.FormattedValue):
        return message_parts(node.value, strings)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*message_parts(node.left, strings), *message_parts(node.right, strings)]
    if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "format":
        return message_parts(node.func.value, strings)
    if isinstance(node, ast.Name) and node.id in strings:
        return [strings[node.id]]
    return [None]


def wrong_sentences(text):
    """Messages of UserError that begin with a capitalised word, or end with a full stop."""
    strings = {
        target.id: node.value.value
        for node in ast.walk(parsed(text))
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    wrong = []
    for node in ast.walk(parsed(text)):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("UserError")
            and node.args
        ):
            parts = message_parts(node.args[0], strings)
            first, last = parts[0] or "", parts[-1] or ""
            # A value, a flag, a name in capitals, NaN: none of these is a capitalised word.
            if re.match(r"[A-Z][a-z]*(\s|$)", first) or last.rstrip().endswith("."):
                wrong.append("".join(part or "{}" for part in parts))
    return wrong


@pytest.mark.parametrize("path", SOURCES)
def test_errors_begin_in_lower_case_and_end_without_a_full_stop(path):
    assert wrong_sentences(SOURCES[path]) == []


def test_the_check_of_sentences_sees_what_it_looks_for():
    for good in (
        '"it is wrong. Give another; or none"',
        'f"{path} is wrong"',
        'f"--flag={x} is wrong"',
        '"NaN in it"',
        '"PUBLISHED is wrong"',
        '"D4RL tasks need it"',
        'f"it is wrong: {error}"',
    ):
        assert wrong_sentences(f"raise UserError({good})") == []
    for bad in ('"It is wrong"', '"it is wrong."', 'f"{path} is wrong."', '"it " + "is wrong."'):
        assert wrong_sentences(f"raise UserError({bad})")
        assert wrong_sentences(f"def f():\n    return errors.UserError({bad})")
    named = 'remedy = "give another."\nraise UserError(f"{path} is wrong; {remedy}")'
    assert wrong_sentences(named) == ["{} is wrong; give another."]
    formatted = 'text = "{} is wrong."\nraise UserError(text.format(path))'
    assert wrong_sentences(formatted) == ["{} is wrong."]


# --- Names ----------------------------------------------------------------------------------------


AGENTS = sorted(path for path in (REPOSITORY / "agents").glob("*.py") if path.stem != "__init__")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["name"]


def code_of(text):
    """A text without its comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body[0] = ast.Pass()
    return ast.unparse(tree)


def names_of_agent(path):
    """What code would call an agent by; one of them has given the project its own name."""
    names = {f"{path.stem}.py", f"agents.{path.stem}", f"agents/{path.stem}"}
    names |= {node.name for node in classes(path.read_text())}
    return names if path.stem == PROJECT else names | {path.stem}


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.stem)
def test_utils_names_no_agent_and_none_of_its_metrics(path):
    panels = {panel.key for panel in toys.load(path).agent_class.PANELS}
    assert panels
    for name, text in UTILS.items():
        assert not [key for key in panels if key in text], name
        code = code_of(text)
        assert not [
            word for word in names_of_agent(path) if re.search(rf"\b{word}\b", code, re.I)
        ], name


# --- Agents ---------------------------------------------------------------------------------------


RUN = 6
NO_STORY = {"get_config", "networks", "sample_noise"}


def story(text):
    """Lines of code that say what an agent does: no settings, tables of networks, noise, words."""
    apart = set()
    for node in ast.walk(parsed(text)):
        is_text = isinstance(node, ast.Expr | ast.Assign) and isinstance(node.value, ast.Constant)
        if (is_text and isinstance(node.value.value, str)) or (
            isinstance(node, ast.FunctionDef) and node.name in NO_STORY
        ):
            first = min([node, *getattr(node, "decorator_list", [])], key=lambda part: part.lineno)
            apart |= set(range(first.lineno, node.end_lineno + 1))
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for number, line in enumerate(lines, 1) if line and number not in apart]


def told_again(own, others):
    """The share of an agent's lines that stand in others' in runs of `RUN` or more."""
    runs = {tuple(other[i : i + RUN]) for other in others for i in range(len(other) - RUN + 1)}
    starts = [i for i in range(len(own) - RUN + 1) if tuple(own[i : i + RUN]) in runs]
    return len({start + i for start in starts for i in range(RUN)}) / len(own)


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.stem)
def test_no_agent_tells_the_story_of_its_siblings(path):
    others = [story(other.read_text()) for other in AGENTS if other != path]
    assert told_again(story(path.read_text()), others) <= 0.5


def test_the_check_of_siblings_sees_what_it_looks_for():
    text = (
        '"""Words."""\n'
        'TABLE = """\na b\n"""\n'
        "class A:\n"
        "    @classmethod\n"
        "    def networks(cls):\n"
        "        return {}\n"
        "    def loss(self):\n"
        '        """Words."""\n'
        "        # words\n"
        "        return 1  # words\n"
    )
    assert story(text) == ["class A:", "def loss(self):", "return 1"]
    lines = list("abcdefgh")
    assert told_again(lines, [list("xabcdefy")]) == 6 / 8
    assert told_again(lines, [list("bcdefgh"), list("abcdefx")]) == 1
    assert told_again(lines, [list("abcdexfgh")]) == 0


def test_entry_points_name_no_agent():
    for name in ENTRY_POINTS:
        code = code_of(SOURCES[name])
        assert not [path.stem for path in AGENTS if re.search(path.stem, code, re.I)]


def test_the_entry_points_share_the_stops_of_the_loop_and_no_more():
    """What is due at a stop is eight lines, the end of the file included."""
    runs_of_lines = []
    for name in ENTRY_POINTS:
        lines = [line for line in SOURCES[name].splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(("import ", "from "))]
        runs_of_lines.append({tuple(lines[i : i + 9]) for i in range(len(lines) - 8)})
    assert all(runs_of_lines)
    assert not set.intersection(*runs_of_lines)


def test_code_is_read_without_its_words():
    text = '"""fql"""\n# fql\ndef f():\n    "fql"\n    return "FQL"\n'
    assert re.findall("fql", code_of(text), re.I) == ["FQL"]
