"""Python files that a user names by path: an agent, a task, an encoder, a rule, a policy."""

import contextlib
import functools
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from utils.errors import UserError

_LIBRARY = Path(__file__).parent


def load_python_file(path: str | Path, option: str) -> ModuleType:
    """Execute a Python file and return its module; files beside it can be imported from it.

    A file is executed once per process, as long as it does not change.

    Args:
        path: The file.
        option: What the user named it by, `--agent` for instance.

    Raises:
        UserError: It is missing, or fails; the message has its line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{option}={path} is not a file; give the path of a Python file")
    status = path.stat()
    return _execute(path.resolve(), option, status.st_mtime_ns, status.st_size)


@functools.cache
def _execute(path: Path, option: str, mtime: int, size: int) -> ModuleType:
    name = f"file_{path.stem}_{abs(hash((path, mtime, size)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{option}={path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up annotations
    with importable(path.parent), readable_errors(path):
        before = set(sys.modules)
        spec.loader.exec_module(module)
        new = [other for key, other in sys.modules.items() if key not in before]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for imports inside its functions
    module.__imported__ = {
        other.__name__: other for other in new if _is_local(other) and other.__file__
    }
    return module


def local_sources(module: ModuleType) -> dict[str, bytes]:
    """Return the source of a module of `load_python_file`, and of all local files it imported.

    Local is what lies outside the installed packages and this library. Keys are paths relative to
    a folder from which the same imports work.
    """
    sources = {Path(module.__file__).name: Path(module.__file__).read_bytes()}
    for name, other in module.__imported__.items():
        file = Path(other.__file__)
        parts = name.split(".")
        path = Path(*parts, "__init__.py") if file.name == "__init__.py" else Path(*parts)
        sources[str(path.with_suffix(".py"))] = file.read_bytes()
    return sources


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Have imports find files in a folder, and forget those that another folder gave."""
    local = {name: module for name, module in list(sys.modules.items()) if _is_local(module)}
    for name in local:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.update(local)


@contextlib.contextmanager
def readable_errors(path: str | Path) -> Iterator[None]:
    """Turn an exception into one line that names the user's file and line.

    It can decorate a function of the file, too.

    Args:
        path: The file; a line in a file beside it is named as well.
    """
    path = Path(path).resolve()
    try:
        yield
    except UserError as error:
        place = _place(error, path) or path
        told = str(error) if str(path) in str(error) else f"{place}: {error}"
        raise UserError(told) from error
    except Exception as error:
        place = _place(error, path) or str(path)
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        reason = " ".join(text.split()) or repr(error)
        raise UserError(f"{place}: {type(error).__name__}: {reason}") from error


def _place(error: Exception, path: Path) -> str | None:
    """Return file and line of the user's code that an exception came through last."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [
        frame
        for frame in frames
        if path.parent in Path(frame.filename).resolve().parents
        and not is_installed(frame.filename)
    ]
    return f"{inside[-1].filename}, line {inside[-1].lineno}" if inside else None


@functools.cache
def _installed() -> list[Path]:
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    return [Path(sysconfig.get_path(key)).resolve() for key in keys] + [_LIBRARY.resolve()]


def _is_local(module: ModuleType) -> bool:
    """Whether a module is a file, or a folder, outside the installed packages and this library."""
    attributes = vars(module)  # getattr would wake a lazy module
    if attributes.get("__name__") == "__main__":
        return False
    file = attributes.get("__file__")
    if file is None:  # a folder without __init__.py
        return any(not is_installed(folder) for folder in attributes.get("__path__", ()))
    return file.endswith(".py") and not is_installed(file)


def is_installed(file: str) -> bool:
    """Whether a file belongs to an installed package or to this library."""
    parents = Path(file).resolve().parents
    return any(folder in parents for folder in _installed())
