"""A file of another repository, with that repository's own imports and nobody else's.

Its `utils` is not this library's, nor that of a third repository in the same process. The modules
of each loaded file lie below a package name of their own in `sys.modules`, and each has an
`__import__` of its own among its builtins. So an import finds the right module from any thread,
also one inside a function that is called much later, and nothing has to be exchanged around a call.
"""

import ast
import builtins
import functools
import importlib
import importlib.machinery
import importlib.util
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_numbers = itertools.count()


class IsolatedModule(ModuleType):
    """A file that was loaded by `load_isolated`.

    Attributes:
        repository: Where its imports are found.
    """

    repository: "_Repository"

    @property
    def root(self) -> Path:
        """The folder from which its imports are found."""
        return self.repository.root

    def import_module(self, name: str) -> ModuleType:
        """Import another module of its repository, or an installed one, by its absolute name."""
        return self.repository.import_module(name)

    def sources(self) -> dict[str, bytes]:
        """Return the files imported from the repository so far, and this one.

        Keys are paths relative to the root.
        """
        files = sorted({Path(self.__file__), *self.repository.files})
        return {str(file.relative_to(self.root)): file.read_bytes() for file in files}


def load_isolated(path: Path) -> IsolatedModule:
    """Execute a file of another repository and return its module.

    It is executed once per process, as long as it does not change.

    Args:
        path: The file, resolved.
    """
    status = path.stat()
    return _execute(path, status.st_mtime_ns, status.st_size)


@functools.cache
def _execute(path: Path, mtime: int, size: int) -> IsolatedModule:
    del mtime, size
    root = find_root(path)
    repository = _Repository(root)
    # Below its folder's package, whose __init__ is left alone unless something is imported from it.
    package = ".".join([repository.name, *path.parent.relative_to(root).parts])
    name = f"{repository.name}.{path.stem}_"
    spec = importlib.util.spec_from_file_location(name, path)
    module = IsolatedModule(name)
    vars(module).update(__file__=str(path), __spec__=None, __package__=package)
    module.repository = repository
    repository.prepare(module)
    sys.modules[name] = module  # where dataclasses look up annotations
    exec(spec.loader.get_code(name), vars(module))
    return module


def find_root(path: Path) -> Path:
    """Return the folder from which a file's absolute imports are found, the nearest if several.

    That is the folder that has most of what it imports; its own, if none has any.
    """
    tops = {
        name.split(".")[0] for name, level in _imports(ast.parse(path.read_bytes())) if not level
    }
    return max(path.parents, key=lambda folder: sum(_has(folder, top) for top in tops))


def class_definitions(path: Path) -> Iterator[ast.ClassDef]:
    """Yield the classes in a file, and those in its repository that they descend from.

    Nothing is executed.
    """
    yield from _class_definitions(path, find_root(path), set())


def _class_definitions(path: Path, root: Path, seen: set[Path]) -> Iterator[ast.ClassDef]:
    seen.add(path)
    tree = ast.parse(path.read_bytes())
    imported = {
        alias.asname or alias.name: module_file([root, *path.parents][node.level], node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node
            for base in node.bases:
                file = imported.get(ast.unparse(base))
                if file and file not in seen:
                    yield from _class_definitions(file, root, seen)


def _imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the names of the modules that a file imports, and how many folders up."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level


def module_file(root: Path, name: str) -> Path | None:
    """Return the file of a module by its dotted name below a folder, None if it is not there."""
    path = root.joinpath(*name.split("."))
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return file
    return None


def _has(root: Path, top: str) -> bool:
    """Whether a folder has a module of this name. A folder without any Python file is none."""
    if module_file(root, top):
        return True
    folder = root / top
    return bool(top) and folder.is_dir() and any(folder.glob("*.py")) and not _is_installed(top)


@functools.cache
def _is_installed(top: str) -> bool:
    """Whether Python or an installed package has a module; a folder of its name gives way."""
    if top in sys.stdlib_module_names:
        return True
    folders = [folder for folder in sys.path if folder.endswith(("-packages", ".zip"))]
    return importlib.machinery.PathFinder.find_spec(top, folders) is not None


class _Loader(importlib.machinery.SourceFileLoader):
    """Executes a module of a repository with the imports of that repository."""

    def __init__(self, name: str, path: str, repository: "_Repository"):
        super().__init__(name, path)
        self._repository = repository

    def exec_module(self, module: ModuleType) -> None:
        self._repository.prepare(module)
        self._repository.files.add(Path(self.path))
        super().exec_module(module)


class _Repository:
    """The modules of a repository as one file imports them.

    Args:
        root: The folder from which they are found.

    Attributes:
        root: The same.
        name: Of the package that they lie in.
        files: Those that were executed.
    """

    def __init__(self, root: Path):
        self.root = root
        self.name = f"repository{next(_numbers)}"
        self.files: set[Path] = set()
        package = ModuleType(self.name)
        package.__path__ = [str(root)]
        sys.modules[self.name] = package
        sys.meta_path.insert(0, self)
        self._builtins = vars(builtins) | {"__import__": self._import}
        self._importlib = ModuleType("importlib")

    def prepare(self, module: ModuleType) -> None:
        """Give a module that is to be executed this repository's imports."""
        vars(module)["__builtins__"] = self._builtins

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find modules below this repository's package; Python's import asks for it."""
        if not name.startswith(f"{self.name}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(name, spec.origin, self)
        return spec

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Do what `__import__` does, for the modules of this repository."""
        top = name.split(".")[0]
        if not level and top == "importlib" and (name == top or not fromlist):
            return self._with_own_import_module(name)
        if level or not _has(self.root, top):
            return self._told(builtins.__import__, name, globals, locals, fromlist, level)
        full = f"{self.name}.{name}"
        module = self._told(builtins.__import__, full, globals, locals, fromlist or ("__name__",))
        return module if fromlist else sys.modules[f"{self.name}.{top}"]

    def _with_own_import_module(self, name: str) -> ModuleType:
        """Return importlib, with the `import_module` of this repository."""
        importlib.import_module(name)
        own = {"import_module": self.import_module}
        vars(self._importlib).update(vars(importlib) | own)
        return self._importlib

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Do what `importlib.import_module` does, for the modules of this repository."""
        if not name.startswith(".") and _has(self.root, name.split(".")[0]):
            name = f"{self.name}.{name}"
        return self._told(importlib.import_module, name, package)

    def _told(self, function: Any, *arguments: Any) -> ModuleType:
        """Call a function that imports; what it lacks is called as the repository calls it."""
        try:
            return function(*arguments)
        except ModuleNotFoundError as error:
            own = f"{self.name}."
            if error.name is None or not error.name.startswith(own):
                raise
            name = error.name.removeprefix(own)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name) from error
