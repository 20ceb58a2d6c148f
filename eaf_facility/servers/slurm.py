"""A Slurm on this machine: munge, a controller and one node, from Debian's packages and on ports of its own.

The ports of controller and node are open on all interfaces, because Slurm can bind them only to what the machine's
name resolves to. They answer only those who have the munge key, which is in a private file. Configuration, keys and
state are in a directory of its own, beside any Slurm that the machine may have. Started by root, it runs each job as
the user who submitted it; started by another user, that user's jobs only. Accounting is off and nothing limits what a
job uses. Jobs end with their node's daemon, and nothing of them stays.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.process.ports import LOOPBACK, free_ports, listens
from eaf_facility.process.server import Child, Server, log_file, owned_directory, plain_environment
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["PACKAGES", "Slurm", "check_python", "missing_packages"]

# Debian's package of each program.
PACKAGES = {
    "munged": "munge",
    **dict.fromkeys(("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "scontrol"), "slurm-wlm"),
}
_FOR_OTHER_USERS = {"sudo": "sudo"}
_NOBODY = 65534
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where Debian has the daemons, and users' PATH often lacks
_CPUS = 16  # the node declares them, whatever the machine has: workers of a trial wait more than they compute
_MEMORY = 65536  # MB, likewise
_IMPORT_SECONDS = 120  # for `check_python`, on a slow file system
_COMMAND_SECONDS = 30
_SOCKET = "munge.sock"
_LONGEST_SOCKET = 107  # bytes in the path of a Unix socket
_CONFIGURATION = """\
ClusterName=eaf
SlurmctldHost={host}({loopback})
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/{socket}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
NodeName={host} NodeAddr={loopback} CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_packages() -> list[str]:
    """Return Debian's packages that Slurm needs, for this user, and this machine does not have."""
    needed = PACKAGES | (_FOR_OTHER_USERS if os.geteuid() == 0 else {})
    return sorted({package for program, package in needed.items() if _found(program) is None})


def check_python(*modules: str) -> None:
    """Check that jobs of any user can run this Python and import these modules.

    Raises
    ------
    ConfigurationError
        This user is root, whose jobs are other users', and another user cannot.
    """
    if os.geteuid() != 0:
        return
    try:
        subprocess.run(
            [sys.executable, "-c", f"import {', '.join(modules)}"],
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            env={},
            cwd="/",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=_IMPORT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or "").strip() or str(error)
        raise ConfigurationError(
            f"Slurm's jobs run as their users, and other users cannot run {sys.executable}: "
            f"{said.splitlines()[-1]}. Install eaf-inference, and its Python, where all users may read, "
            "such as /opt/eaf-inference. /root is closed to them."
        ) from None


def _found(name: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    return shutil.which(name, path=path)


def _program(name: str) -> str:
    found = _found(name)
    if found is None:
        raise ConfigurationError(
            f"Slurm needs the program {name}, which is not installed. Debian has it: "
            f"apt-get install --no-install-recommends {PACKAGES[name]}"
        )
    return found


@dataclass(frozen=True, slots=True)
class Slurm:
    """A running Slurm.

    Attributes
    ----------
    directory : Path
    servers : sequence of Server
        munged, slurmctld and slurmd, each after those it depends on.
    """

    directory: Path
    servers: Sequence[Server]

    @classmethod
    @contextmanager
    def start(cls, *, timeout: float = 30.0) -> Iterator[Slurm]:
        """Run it for the duration of a `with` block, which begins when the node takes jobs.

        Raises
        ------
        ConfigurationError
            A program is not installed, or did not start.
        """
        if missing := missing_packages():
            raise ConfigurationError(
                f"Slurm needs Debian's packages: apt-get install --no-install-recommends {' '.join(missing)}"
            )
        with owned_directory("eaf-inference-slurm-") as directory:
            directory.chmod(0o755)  # each user's commands read slurm.conf, and reach munge's socket
            _check_readable(directory)
            _check_length(directory)
            _prepare(directory)
            servers = [_Munge(directory), _Controller(directory), _Node(directory)]
            try:
                for server in servers:
                    server.launch()
                    server.wait_until_ready(timeout=timeout)
                yield cls(directory, servers)
            finally:
                for server in reversed(servers):  # jobs end before the controller that keeps their state
                    server.stop()

    @property
    def configuration(self) -> Path:
        return self.directory / "slurm.conf"

    @property
    def jobs_directory(self) -> Path:
        """Where each user may make directories for her jobs, which end with this Slurm."""
        return self.directory / "jobs"

    @property
    def environment(self) -> Mapping[str, str]:
        """What Slurm's commands need in their environment."""
        return {"SLURM_CONF": str(self.configuration)}

    def run(self, *command: str) -> str:
        """Run one of Slurm's commands, such as ``squeue``, and return its output."""
        return _output(self.directory, *command)


def _prepare(directory: Path) -> None:
    """Write the configuration and the key that all daemons share."""
    for name, mode in (("munge", 0o700), ("state", 0o700), ("spool", 0o755), ("jobs", 0o1777)):
        (directory / name).mkdir()
        (directory / name).chmod(mode)  # whatever the umask
    key = directory / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller_port, node_port = free_ports(2)
    text = _CONFIGURATION.format(
        directory=directory,
        socket=_SOCKET,
        host=socket.gethostname().partition(".")[0],
        loopback=LOOPBACK,
        user=_user(),
        controller_port=controller_port,
        node_port=node_port,
        cpus=_CPUS,
        memory=_MEMORY,
    )
    configuration = directory / "slurm.conf"
    configuration.write_text(text, encoding="utf-8")
    configuration.chmod(0o644)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ConfigurationError(
            f"Slurm needs a user name, and the user id {os.geteuid()} has none in /etc/passwd. Add the user."
        ) from None


def _check_readable(directory: Path) -> None:
    """Check that jobs of other users reach this directory."""
    if os.geteuid() == 0:
        for parent in directory.resolve().parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                raise ConfigurationError(
                    f"Slurm's jobs run as their users, and other users cannot enter {parent}. Set TMPDIR to a "
                    "directory that all users may enter, such as /tmp."
                )


def _check_length(directory: Path) -> None:
    """Check that the path of munge's socket is not too long."""
    if len(os.fsencode(directory / _SOCKET)) > _LONGEST_SOCKET:
        raise ConfigurationError(
            f"The path of Slurm's socket, {directory / _SOCKET}, is longer than {_LONGEST_SOCKET} bytes. Set TMPDIR "
            "to a directory with a shorter path, such as /tmp."
        )


def _output(directory: Path, *command: str) -> str:
    program = _program(command[0])
    # sbatch passes its environment on to the job
    environment = plain_environment(first_on_path=Path(program).parent)
    environment["SLURM_CONF"] = str(directory / "slurm.conf")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"{' '.join(command)} gave no answer within {_COMMAND_SECONDS} s. Is slurmctld running?"
        ) from None
    if done.returncode:
        raise ConfigurationError(f"{' '.join(command)} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


class _Daemon(Server):
    """One of Slurm's daemons, in the foreground."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def launch(self) -> None:
        """Start the program, without waiting until it is ready."""
        program = _program(self.name)
        self.log = log_file(self.name)
        environment = plain_environment(first_on_path=Path(program).parent)
        environment["SLURM_CONF"] = str(self._directory / "slurm.conf")
        self._child = Child([program, *self._arguments()], environment=environment, log=self.log)

    def _arguments(self) -> list[str]:
        return ["-D", "-f", str(self._directory / "slurm.conf")]

    def reason(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-5:]) or "see its log"


class _Munge(_Daemon):
    name = "munged"

    def _arguments(self) -> list[str]:
        files = self._directory / "munge"
        return [
            "--foreground",
            "--force",  # as root, and with a log that its group may read
            f"--key-file={files / 'key'}",
            f"--socket={self._directory / _SOCKET}",
            f"--pid-file={files / 'pid'}",
            f"--log-file={files / 'log'}",
            f"--seed-file={files / 'seed'}",
        ]

    def is_ready(self) -> bool:
        """Return whether its socket takes connections."""
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self._directory / _SOCKET)) == 0


class _Controller(_Daemon):
    name = "slurmctld"

    def is_ready(self) -> bool:
        """Return whether it listens."""
        return listens(self.pid, _port(self._directory, "SlurmctldPort"))


class _Node(_Daemon):
    name = "slurmd"

    def is_ready(self) -> bool:
        """Return whether the controller gives it jobs."""
        try:
            state = _output(self._directory, "sinfo", "--noheader", "--format=%T").strip()
        except ConfigurationError:  # the controller does not answer yet
            return False
        return state in ("idle", "mixed", "allocated")


def _port(directory: Path, key: str) -> int:
    lines = (directory / "slurm.conf").read_text(encoding="utf-8").splitlines()
    return next(int(line.partition("=")[2]) for line in lines if line.startswith(f"{key}="))
