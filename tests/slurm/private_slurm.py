"""A Slurm of its own on this machine, in a scratch folder, for the length of a with-block."""

import contextlib
import dataclasses
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "setpriv")
# The script of an array takes the `python` of the path, as the commands of a sweep do.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
# A node has one core, so that each has one task. `cred_expire` shortens what a requeued job waits
# from 120 s to 6; after `SlurmdTimeout` a silent node counts as lost.
CONFIGURATION = """
ClusterName=scratch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=60
MinJobAge=3600
SlurmdTimeout=10
ReturnToService=0
MpiDefault=none
MaxArraySize={max_array_size}
"""


@dataclasses.dataclass(frozen=True)
class Job:
    """What Slurm says of a job or of a task of an array."""

    id: str
    state: str
    node: str
    restarts: int


class PrivateSlurm:
    """Daemons with keys, ports and files of their own; nothing in /etc is read.

    The partition `high` preempts the default one. Whatever the daemons and jobs have started is
    killed at the end, and the daemons also if this process dies.

    Args:
        folder: A new folder.
        nodes: How many nodes, n1 and so on.
        max_array_size: What Slurm is configured with.

    Attributes:
        environment: Variables under which Slurm's commands mean this one. An outer Slurm's are left
            out, which `sbatch` would obey.
    """

    def __init__(self, folder, nodes, max_array_size=1001):
        self.folder = Path(folder)
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "SBATCH_", "SQUEUE_", "SCANCEL_"))
        }
        self.environment |= {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}
        self._max_array_size = max_array_size
        self._daemons = {}

    def __enter__(self):
        try:
            self._configure()
            self._start_all()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exception):
        self._stop()

    # --- Use --------------------------------------------------------------------------------------

    def run(self, *arguments, check=True, **environment):
        """Run a command to its end; returns what it printed."""
        done = subprocess.run(
            [str(argument) for argument in arguments],
            env=self.environment | environment,
            cwd=self.folder.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def job(self, task):
        """Ask for a job, or a task as in 7_0."""
        (line,) = self.run("scontrol", "show", "job", "-o", task).splitlines()
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        node = words.get("NodeList", "")
        return Job(words["JobId"], words["JobState"], node, int(words["Restarts"]))

    def processes(self, **environment):
        """Ids of the processes that have these variables, and this Slurm's configuration."""
        wanted = {"SLURM_CONF": self.environment["SLURM_CONF"]} | environment
        entries = {f"{name}={value}".encode() for name, value in wanted.items()}
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if entries <= set(path.read_bytes().split(b"\0")):
                    found.append(int(path.parent.name))
        return sorted(found)

    def lose(self, node):
        """Kill a node's daemon. What runs there runs on, as after a lost network."""
        self._daemons[node].kill()
        self._daemons[node].wait()

    # --- Start and stop ---------------------------------------------------------------------------

    def _configure(self):
        for name in ("munge", "state", "spool", "log"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge/key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        host = socket.gethostname().split(".")[0]
        port, *ports = _free_ports(1 + len(self.nodes))
        text = CONFIGURATION.format(
            host=host,
            port=port,
            user=getpass.getuser(),
            folder=self.folder,
            max_array_size=self._max_array_size,
        )
        for node, number in zip(self.nodes, ports, strict=True):
            text += (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={number} CPUs=1 "
                "State=UNKNOWN\n"
            )
        nodes = ",".join(self.nodes)
        text += f"PartitionName=main Nodes={nodes} Default=YES PriorityTier=1\n"
        text += f"PartitionName=high Nodes={nodes} PriorityTier=10 PreemptMode=OFF\n"
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def _start_all(self):
        munge = self.folder / "munge"
        self._start(
            "munged",
            *("--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key"),
            *(f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", f"--log-file={munge}/log"),
        )
        wait_until(lambda: (munge / "socket").exists(), 20, "munged")
        self._start("slurmctld", "-D")
        ping = ("scontrol", "ping")
        wait_until(lambda: " is UP" in self.run(*ping, check=False), 20, "slurmctld")
        for node in self.nodes:
            self._start("slurmd", "-D", "-N", node, name=node)
        idle = ("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D")
        wait_until(lambda: self.run(*idle).strip() == str(len(self.nodes)), 30, "idle nodes")

    def _start(self, program, *arguments, name=None):
        """Start a daemon in the foreground, to be killed with this process."""
        name = name or program
        with (self.folder / f"log/{name}").open("wb") as log:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", program, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _stop(self):
        """Kill the controller first, so that nothing is started again, and all others then."""
        for name in sorted(self._daemons, key=lambda name: name != "slurmctld"):
            self._daemons[name].kill()
            self._daemons[name].wait()

        def none_is_left():
            left = self.processes()
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            return not left

        wait_until(none_is_left, 20, "the end of what jobs have started")


def wait_until(condition, seconds, what):
    """Wait until a condition holds, up to a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


def _free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
