"""Python files that a user names by path: an agent, a task, an encoder, a rule, a policy."""

import contextlib
import functools
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

from utils.errors import UserError
from utils.isolated import IsolatedModule

_LIBRARY = Path(__file__).parent
_AGENTS = _LIBRARY.parent / "agents"
_STANDARD = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]

_imported: set[str] = set()
"""Names of the modules that user's files have imported from files beside them."""


def load_python_file(path: str | Path, option: str) -> ModuleType:
    """Execute a Python file and return its module; files beside it can be imported from it.

    A file is executed once per process, as long as it does not change. Functions of it that import
    files when they are called are to be called within `importable`, or by `user_function`.

    Args:
        path: The file.
        option: What the user named it by, `--agent` for instance.

    Raises:
        UserError: It is missing, or fails; the message has its line.
    """
    path = Path(path).expanduser()
    try:
        is_file, status = path.is_file(), path.stat()
    except OSError:
        is_file = False
    if not is_file:
        raise UserError(f"{option}={path} is not a file; give the path of a Python file")
    return _execute(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.cache
def _execute(path: Path, mtime: int, size: int) -> ModuleType:
    name = f"file_{path.stem}_{abs(hash((path, mtime, size)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    module.__imported__ = {}
    sys.modules[name] = module  # where dataclasses look up annotations
    with importable(module), readable_errors(path):
        spec.loader.exec_module(module)
    return module


def local_sources(module: ModuleType) -> dict[str, bytes]:
    """Return the source of a module of a user's file, and of all local files it imported.

    Local is what lies outside the installed packages and this library. Keys are paths relative to
    a folder from which the same imports work. What functions import is among them once they have
    been called within `importable`.
    """
    if isinstance(module, IsolatedModule):
        return module.sources()
    sources = {Path(module.__file__).name: Path(module.__file__).read_bytes()}
    for name, file in module.__imported__.items():
        path = Path(*name.split("."))
        path = path / "__init__.py" if file.name == "__init__.py" else path.with_suffix(".py")
        sources[str(path)] = file.read_bytes()
    return sources


@contextlib.contextmanager
def importable(module: ModuleType) -> Iterator[None]:
    """Have imports find files beside a module of `load_python_file`, and note which they are.

    What files beside others have been imported by the same names is set aside meanwhile. A module
    of `load_isolated` sees to its imports itself.
    """
    if isinstance(module, IsolatedModule):
        yield
        return
    known, aside = module.__imported__, {}
    for name, other in list(sys.modules.items()):
        file = _file_of(other)
        users = name in _imported or (file is not None and _is_agents(file))
        if users and (file is None or file != known.get(name)):
            aside[name] = sys.modules.pop(name)
    before, folder = set(sys.modules), str(Path(module.__file__).parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            file = _file_of(sys.modules[name])
            if file is None and _is_local_folder(sys.modules[name]):
                _imported.add(name)
            if file is not None and file.suffix == ".py" and not is_installed(str(file)):
                _imported.add(name)
                known[name] = file
        for name, other in aside.items():
            sys.modules.setdefault(name, other)


@contextlib.contextmanager
def users_code(module: ModuleType) -> Iterator[None]:
    """Run code of a user's module: files beside it can be imported, and errors name its line."""
    path = Path(module.__file__)
    with importable(module), readable_errors(path, getattr(module, "root", path.parent)):
        yield


def user_function(module: ModuleType, name: str) -> Callable:
    """Return a function of a module of `load_python_file`, for calls from outside.

    It can import files beside it, and its errors name file and line.
    """
    return users_code(module)(getattr(module, name))


def named_or_from_file(
    value: str, named: Mapping[str, Callable], option: str, signature: str
) -> Callable:
    """Return a function by its name, or from a Python file that defines it.

    Args:
        value: A key of `named`, or the path of a file.
        named: Functions by name.
        option: What the user gave the value by, `--eval_policy` for instance.
        signature: How the file's function is called, `policy(agent, observation, key)`.

    Raises:
        UserError: It is neither, or the file fails or lacks the function.
    """
    if value in named:
        return named[value]
    if not value.endswith(".py"):
        raise UserError(
            f"{option}={value} is not one of {', '.join(named)}, nor the path of a Python file "
            f"with {signature}"
        )
    module, name = load_python_file(value, option), signature.partition("(")[0]
    if not callable(getattr(module, name, None)):
        raise UserError(f"{value} must define {signature}")
    return user_function(module, name)


@contextlib.contextmanager
def readable_errors(path: Path, root: Path | None = None) -> Iterator[None]:
    """Turn an exception into one line that names the user's file and line.

    Args:
        path: The file, resolved.
        root: Lines of files below this folder are named as well; by default of those beside it.
    """
    root = root or path.parent
    try:
        yield
    except UserError as error:
        place = _place(error, root) or path
        told = str(error) if str(path) in str(error) else f"{place}: {error}"
        raise UserError(told, error.details) from error
    except (Exception, SystemExit) as error:
        place = _place(error, root) or str(path)
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        first = re.split(r"\nThe (?:problem arose|error occurred)", text)[0]  # JAX says more
        reason = " ".join(first.split()) or repr(error)
        if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:
            reason += f"; if that is a package: pip install {error.name}"
        raise UserError(f"{place}: {type(error).__name__}: {reason}") from error


def _place(error: Exception, root: Path) -> str | None:
    """Return file and line of the code below a folder that an exception came through last."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [
        frame
        for frame in frames
        if root in Path(frame.filename).resolve().parents and not is_installed(frame.filename)
    ]
    return f"{inside[-1].filename}, line {inside[-1].lineno}" if inside else None


def _file_of(module: ModuleType) -> Path | None:
    """Return a module's file, if it has one; getattr would wake a lazy module."""
    file = vars(module).get("__file__")
    return _resolved(file) if file else None


@functools.cache
def _resolved(file: str) -> Path:
    return Path(file).resolve()


@functools.cache
def _is_agents(file: Path) -> bool:
    """Whether a file is one of the agents that come with this library."""
    return _AGENTS in file.parents


def _is_local_folder(module: ModuleType) -> bool:
    """Whether a module is a folder without __init__.py, outside the installed packages."""
    return any(not is_installed(folder) for folder in vars(module).get("__path__", ()))


@functools.cache
def is_installed(file: str) -> bool:
    """Whether a file belongs to Python, to an installed package or to this library."""
    path = _resolved(file)
    if any(folder in path.parents for folder in (*_STANDARD, _LIBRARY)):
        return True
    return any(map(_holds_packages, path.parents))


@functools.cache
def _holds_packages(folder: Path) -> bool:
    """Whether packages are installed in a folder, wherever it is."""
    if folder.name in ("site-packages", "dist-packages"):
        return True
    return any(folder.glob("*.dist-info"))
