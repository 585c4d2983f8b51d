"""The programs as they are compiled for a GPU, on a machine that has none."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jaxlib
import numpy as np
import pytest

from tests import toys
from utils import online, training
from utils.datasets import DeviceDataset, HostDataset, example_batch
from utils.online import OnlineState, OnlineTrainer
from utils.replay import Replay
from utils.training import Trainer, TrainingState, create_agents

SECONDS = 900
UNREACHABLE = re.compile(
    r"connection broken|connection error|failed to establish|name resolution|name or service|"
    r"timed out|proxyerror|network is unreachable|no matching distribution|no space left",
    re.IGNORECASE,
)
# An H100, as far as the compiler asks.
TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H100"
"""


def install():
    """Install XLA's compiler for CUDA (4 GB), unless an earlier call has; returns the folder."""
    version = jaxlib.__version__
    folder = Path(tempfile.gettempdir(), f"jax-cuda13-{version}-{os.getuid()}")
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch, "target")
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        command += ["--retries=1", f"--target={target}"]
        command += [f"jax-cuda13-plugin[with-cuda]=={version}"]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"pip did not end within {SECONDS} s")
        output = result.stdout + result.stderr
        if result.returncode and UNREACHABLE.search(output):
            pytest.skip(f"pip could not install {command[-1]}: {output[-300:]}")
        assert result.returncode == 0, output[-2000:]
        if not folder.is_dir():
            target.rename(folder)
    return folder


def trip_counts(program, *arguments):
    """The numbers of iterations of all loops of a program, None where the compiler lacks them.

    Args:
        program: A jitted function.
        *arguments: Its arguments; their shapes alone matter.
    """
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="h100", target_config=TARGET, topology="1x1x1"
    )
    sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), jax.dtypes.result_type(x), sharding=sharding),
        arguments,
        is_leaf=lambda x: isinstance(x, jax.Array),
    )
    lowered = program.trace(*shapes).lower(lowering_platforms=("cuda",))
    loops = [line for line in lowered.compile().as_text().splitlines() if " while(" in line]
    counts = [re.search(r'known_trip_count":\{"n":"(\d+)"', line) for line in loops]
    return [None if count is None else int(count[1]) for count in counts]


def show_trip_counts():
    """Called in a program that has the compiler: print those of every program, by its name."""
    # The backend is a CPU here, whose options mean nothing to the other compiler.
    training.compiler_options = online.compiler_options = dict
    data = toys.transitions(size=500)
    agent_class, config = toys.tiny(flow_steps=10)
    example = example_batch(data, config.batch_size)
    found = {}
    for seeds in (np.arange(1), np.arange(3)):
        agents = create_agents(agent_class, seeds, example, config)
        state = TrainingState.create(agents, seeds, example)
        device = DeviceDataset(data, config.batch_size)
        sources = [device, HostDataset(data, config.batch_size)]
        for source in sources[: 2 if len(seeds) == 1 else 1]:
            name = f"{type(source).__name__}, {len(seeds)} members"
            trainer = Trainer(source, len(seeds), chunk=50)
            prefetched = source.prefetch(state.data_keys, 0, 50)
            found[f"chunk, {name}"] = trip_counts(trainer._run_chunk, state, prefetched)
            found[f"remainder, {name}"] = trip_counts(
                trainer._run_any, state, prefetched, np.int32(7)
            )
        replay = Replay(
            device.arrays,
            capacity=1000,
            batch_size=config.batch_size,
            num_members=len(seeds),
            max_inserts=100,
        )
        state = OnlineState.create(agents, seeds, example)
        numbers = np.zeros(len(seeds), np.float32)
        outcome = {"next_observations": state.observations, "observations": state.observations}
        outcome |= {"rewards": numbers, "masks": numbers}
        found[f"online, {len(seeds)} members"] = trip_counts(
            OnlineTrainer(replay, 0)._jitted_step,
            state,
            replay.empty(),
            replay.dataset,
            outcome,
            np.int32(2),
            None,
        )
    print(json.dumps(found))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
def test_no_loop_waits_for_the_host_but_the_remainders_and_the_one_over_utd():
    script = (
        "import sys; sys.path.append(sys.argv[1]); "
        "from tests.test_gpu_program import show_trip_counts; show_trip_counts()"
    )
    environment = {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    result = subprocess.run(
        [sys.executable, "-c", script, str(install())],
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert len(found) == 8
    for name, counts in found.items():
        chunk = name.startswith("chunk")
        assert counts.count(None) == (0 if chunk else 1), (name, counts)
        assert (50 in counts) == chunk, (name, counts)
        assert 10 in counts, (name, counts)  # the Euler steps
