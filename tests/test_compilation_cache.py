import os
import sys

import pytest

from tests.small_runs import execute, start
from utils.compilation_cache import limit_size

SHOW_CACHE = """
import jax
from utils.compilation_cache import enable_compilation_cache
enable_compilation_cache()
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1)(0)
"""


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "home", "XDG_CACHE_HOME": "cache"}, "cache/deflow/jax"),
        pytest.param({"HOME": "home"}, "home/.cache/deflow/jax", marks=pytest.mark.slow),
        pytest.param(
            {"XDG_CACHE_HOME": "cache", "JAX_COMPILATION_CACHE_DIR": "own"},
            "own",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_compiled_programs_are_kept_in_the_users_cache_folder(tmp_path, environment, folder):
    script = [sys.executable, "-c", SHOW_CACHE]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")
    }
    inherited["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    given = {name: str(tmp_path / value) for name, value in environment.items()}
    folder = tmp_path / folder
    folder.mkdir(parents=True)
    old = folder / "old-cache"
    old.touch()
    os.truncate(old, 3 << 30)
    os.utime(old, (0, 0))
    output, _ = start(script, env=inherited | given).communicate(timeout=60)
    assert output.strip() == str(folder)
    assert old.exists() == ("JAX_COMPILATION_CACHE_DIR" in environment)
    assert any(path != old for path in folder.iterdir())


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_used_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "file" / "cache")}
    assert "NotADirectoryError" in execute([sys.executable, "-c", SHOW_CACHE], **environment)


HEAL = """
import sys
import warnings
from pathlib import Path
import jax
from utils.compilation_cache import enable_compilation_cache

warnings.simplefilter("always")  # Another start would show the same warning once more.
enable_compilation_cache()
counts = {}
jax.monitoring.register_event_listener(
    lambda event, **_: counts.update({event: counts.get(event, 0) + 1})
)

def compiled():
    jax.clear_caches()
    counts.clear()
    jax.jit(lambda x: x + 1)(0)
    return counts.get("/jax/compilation_cache/cache_hits", 0)

assert compiled() == 0
(entry,) = Path(sys.argv[1]).glob("*-cache")
whole = entry.read_bytes()
other = entry.with_name(entry.name.replace("-", "-0", 1))
for damaged in (whole[: len(whole) // 2], b"", whole[:-9] + bytes(9)):
    entry.write_bytes(damaged)
    other.write_bytes(whole)
    print("damaged", file=sys.stderr, flush=True)
    assert compiled() == 0
    print("healed", file=sys.stderr, flush=True)
    assert compiled() == 1
    assert len(entry.read_bytes()) > len(whole) // 2
    assert other.read_bytes() == whole
print(entry.name)
"""


def test_a_damaged_entry_costs_a_line_and_is_replaced(tmp_path):
    """What clears JAX's own caches stands for another start."""
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    output = execute([sys.executable, "-c", HEAL, str(tmp_path)], **environment)
    *lines, name = output.splitlines()
    line = f"deleted damaged entries of the cache of compiled programs: {name}"
    assert lines == ["damaged", line, "healed"] * 3


def test_the_size_limit_deletes_what_was_not_used_for_longest(tmp_path):
    limit_size(tmp_path / "missing", 0)
    (tmp_path / "folder").mkdir()
    for day, name in enumerate(["c", "folder/a", "d", "b"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (day * 86_400, 0))
    os.utime(tmp_path / "folder" / "a", (0, 9 * 86_400))  # written last
    left = [{"a", "b", "c", "d"}, {"a", "b", "d"}, {"a"}, set()]
    for max_bytes, names in zip((400, 399, 199, 0), left, strict=True):
        limit_size(tmp_path, max_bytes)
        assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == names
