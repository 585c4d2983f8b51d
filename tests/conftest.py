"""How JAX compiles in all tests and the programs they start, and signals for the latter."""

import os
import signal
import tempfile
from pathlib import Path

# Most of the tests' time is compiling, of which this saves a third. XLA_FLAGS= leaves it out.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
)

import jax
import pytest

_folder = os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"deflow-jax-{os.getuid()}")
)
# No test goes beyond this machine: what is not on it is asked of a proxy that is not there.
for _scheme in ("http", "https"):
    os.environ[f"{_scheme}_proxy"] = "http://127.0.0.1:9"
os.environ["no_proxy"] = "127.0.0.1,localhost"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
jax.config.update("jax_compilation_cache_dir", _folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# A shell starts what runs in the background with SIGINT ignored, and nohup with SIGHUP. Programs
# inherit that, but not a handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_addoption(parser):
    parser.addoption(
        "--agent", help="path of an agent's file, to which the common behaviour tests keep then"
    )


@pytest.fixture(autouse=True, scope="module")
def _few_mappings():
    """Drops compiled programs before the process has more mappings of memory than Linux allows.

    A program takes about seven, of 65,530 by default, beyond which XLA ends in a segmentation
    fault.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 15_000:
        jax.clear_caches()


@pytest.fixture
def signals_restored():
    """Restores what a program that a signal ends leaves ignored, as its process ends then."""
    from utils.runs.signals import EXIT_CODES

    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory):
    """A small dataset of the task of `tests.small_runs`."""
    from tests.small_runs import collect_small

    folder = tmp_path_factory.mktemp("data")
    collect_small(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, dataset_dir):
    """The run of `tests.small_runs`, trained to its end. To be read only, as many share it."""
    from tests.small_runs import train

    return train(tmp_path_factory.mktemp("undisturbed"), dataset_dir)
