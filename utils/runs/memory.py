"""What a run takes of memory, said before it runs out."""

from utils.datasets import DeviceDataset, Source, device_memory, nbytes
from utils.envs import tasks
from utils.errors import UserError
from utils.files import npz_bytes
from utils.host_memory import available_memory
from utils.runs.logs import say
from utils.runs.settings import Settings
from utils.training import Trainer, TrainingState

_WORTH_SAYING = 2**30


def say_reading(settings: Settings) -> None:
    """Say how much data are about to be read, if that takes a while and much memory."""
    paths = tasks.dataset_files(settings.env_name, settings.flags["dataset_dir"])
    size = sum(map(npz_bytes, paths))
    if size >= _WORTH_SAYING:
        say(f"reading {gib(size)} of data; {gib(available_memory())} of memory can be had")


def where_data_are(source: Source) -> str:
    """Say in words how large the data are and where."""
    size = gib(nbytes(source.arrays))
    if isinstance(source, DeviceDataset):
        return f"{size} on the device"
    return f"{size} in host memory, {source.max_updates} batches sent at once"


def describe_training(needed: int) -> str:
    """Say in words what each device holds while it trains, of what it has."""
    there_is = device_memory()
    return f"{gib(needed)}{'' if there_is is None else f' of {gib(there_is)}'} per device"


def require_device_memory(trainer: Trainer, state: TrainingState) -> None:
    """Say what training takes of a device's memory; nothing on a CPU.

    Raises:
        UserError: It is more than there is.
    """
    there_is = device_memory()
    if there_is is None:
        return
    needed = trainer.memory(state)
    said = f"{describe_training(needed)}; data: {where_data_are(trainer.source)}"
    if needed > there_is:
        raise UserError(
            f"training takes {said}: lower --num_seeds or --agent.batch_size, or give more devices"
        )
    say(f"memory: {said}")


def gib(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 2**30:.3g} GiB"
