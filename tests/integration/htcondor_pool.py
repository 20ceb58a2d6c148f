"""A real HTCondor pool on this machine, private to one test module, with the paths that EAF's client expects.

The pool has one node: `condor_master` and its daemons, on loopback, as one user. It has the mounts and processes of
a container: `/cvmfs`, `/uscmst1b_scratch` and `/usr/local/bin` are its own, and all of its processes end with it. The
user and the other files are this machine's. It needs Linux's user namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[2] / "build" / "htcondor"  # where tests/htcondor.sh unpacks them
IMAGE = "registry.hub.docker.com/coffeateam/coffea-base-almalinux8:0.7.22-py3.10"  # htcdaskgateway's default
SCRATCH = "uscmst1b_scratch/lpc1/3DayLifetime"
APPTAINER = "cvmfs/oasis.opensciencegrid.org/mis/apptainer/current/bin/apptainer"
USER = 65534  # nobody, in there; HTCondor takes no jobs from root
_STARTS_WITHIN = 60.0  # seconds

_CONFIGURATION = """\
LOCAL_DIR = {directory}
RELEASE_DIR = {release}
LIB = $(RELEASE_DIR)/lib/condor
LIBEXEC = {libexec}
BIN = $(RELEASE_DIR)/bin
SBIN = $(RELEASE_DIR)/sbin
LOG = $(LOCAL_DIR)/log
SPOOL = $(LOCAL_DIR)/spool
EXECUTE = $(LOCAL_DIR)/execute
LOCK = $(LOCAL_DIR)/lock
RUN = $(LOCAL_DIR)/run
DAEMON_LIST = MASTER, COLLECTOR, NEGOTIATOR, SCHEDD, STARTD
CONDOR_HOST = 127.0.0.1
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = false
COLLECTOR_HOST = $(CONDOR_HOST):0
COLLECTOR_ADDRESS_FILE = $(LOG)/collector_address
USE_SHARED_PORT = false
UID_DOMAIN = pool.test
FILESYSTEM_DOMAIN = pool.test
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_NEGOTIATOR = *
ALLOW_ADMINISTRATOR = *
START = true
SUSPEND = false
PREEMPT = false
KILL = false
NUM_CPUS = 16
MEMORY = 65536
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = true
STARTD_ATTRS = $(STARTD_ATTRS) isDaskNode
isDaskNode = true
# the defaults are for thousands of nodes
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
UPDATE_INTERVAL = 5
JOB_START_DELAY = 0
RUNBENCHMARKS = false
DISABLE_AUTHENTICATION_OVERRIDES = true
CREDD_HOST =
"""

# Build a root of this machine's directories and four of our own, and enter it.
_ENTER = """\
set -e
directory=$1 user=$2
shift 2
root=$directory/root
mount -t tmpfs tmpfs $root
for entry in /* ; do
  if [ -L $entry ]; then cp -P $entry $root$entry
  elif [ -d $entry ] && [ $entry != /cvmfs ] && [ $entry != /uscmst1b_scratch ]; then
    mkdir $root$entry
    mount --rbind $entry $root$entry
  fi
done
for own in cvmfs uscmst1b_scratch; do
  mkdir $root/$own
  mount --bind $directory/$own $root/$own
done
mount --bind $directory/bin $root/usr/local/bin
mkdir $root/.old
cd $root
pivot_root . .old
umount -l /.old
cd $directory
exec unshare --user --map-user=$user --map-group=$user "$@"
"""

# In place of apptainer and the image: a plain process, with this environment's programs. What it changes are the
# addresses and paths that exist in the image or at Fermilab only.
_APPTAINER = """\
#!/bin/bash
# apptainer exec -B HERE:THERE … IMAGE COMMAND …
[ "$1" = exec ] && shift || exit 2
declare -A bound
while [ "$1" = -B ]; do
  bound[${{2#*:}}]=${{2%%:*}}
  shift 2
done
image=$1
[ -d "$image" ] || {{ echo "no image $image" >&2; exit 255; }}
shift
arguments=()
for argument in "$@"; do
  for bind in "${{!bound[@]}}"; do
    there=${{bind%/}}
    case $argument in "$there"|"$there"/*) argument=${{bound[$bind]%/}}${{argument#"$there"}};; esac
  done
  case $argument in tls://131.225.218.222:80) argument=$(cat {directory}/scheduler_address);; esac
  arguments+=("$argument")
done
while IFS= read -r name; do
  declare -x "${{name#APPTAINERENV_}}=${{!name}}"
  unset "$name"
done < <(compgen -e | grep ^APPTAINERENV_)
export PATH=$image/bin:{programs}:$PATH
exec "${{arguments[@]}}" --dashboard-address 127.0.0.1:0
"""


def programs() -> Path | None:
    """Return the prefix of HTCondor's programs, if this machine has them."""
    if (PROGRAMS / "ready").exists():
        return PROGRAMS / "usr"
    found = shutil.which("condor_master")
    return Path(found).resolve().parents[1] if found else None


class Pool:
    """A running pool of one node.

    Attributes
    ----------
    directory : pathlib.Path
        Its configuration, logs, spool and the jobs' directories.
    """

    def __init__(self, directory: Path, prefix: Path) -> None:
        self.directory = directory
        self._prefix = prefix
        ours = [Path(sys.executable).parent, "/usr/local/bin", prefix / "bin", prefix / "sbin"]
        self._environment = {
            "PATH": os.pathsep.join([*map(str, ours), "/usr/bin", "/bin", "/usr/sbin", "/sbin"]),
            "CONDOR_CONFIG": str(directory / "condor_config"),
            "HOME": str(directory / "home"),
        }
        self._main: subprocess.Popen | None = None

    @property
    def scratch(self) -> Path:
        """The directory that htcdaskgateway writes clusters' job files to."""
        return self.directory / SCRATCH

    def lay_out(self) -> None:
        for name in ("log", "spool", "execute", "lock", "run", "root", "bin", "home", SCRATCH):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "cvmfs" / "unpacked.cern.ch" / IMAGE).mkdir(parents=True)
        self._write(
            "condor_config",
            _CONFIGURATION.format(
                directory=self.directory, release=self._prefix, libexec=self._prefix / "libexec" / "condor"
            ),
        )
        self._write("enter.sh", _ENTER)
        apptainer = self._write(
            APPTAINER, _APPTAINER.format(directory=self.directory, programs=Path(sys.executable).parent)
        )
        apptainer.chmod(0o755)
        for program in (self._prefix / "bin").glob("condor_*"):  # htcdaskgateway names them by this path
            (self.directory / "bin" / program.name).symlink_to(program)

    def reach_schedulers_at(self, address: str) -> None:
        """Name the gateway's proxy to workers, in place of EAF's, which is fixed in htcdaskgateway."""
        self._write("scheduler_address", address)

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def launch(self) -> None:
        apart = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        enter = ["sh", str(self.directory / "enter.sh"), str(self.directory), str(USER)]
        with (self.directory / "log" / "pool").open("wb") as log:
            self._main = subprocess.Popen(
                [*apart, *enter, "condor_master", "-f"], env=self._environment, stdout=log, stderr=log
            )

    def wait_until_ready(self) -> None:
        ends = time.monotonic() + _STARTS_WITHIN
        while "slot1" not in self.run(["condor_status", "-af", "Name"]).stdout:
            assert time.monotonic() < ends, self.logs()
            assert self._main.poll() is None, self.logs()
            time.sleep(0.1)

    def run(self, command, *, cwd=None, timeout=300, **environment) -> subprocess.CompletedProcess[str]:
        """Run a command as the pool's user on its node, where she would submit jobs."""
        children = Path(f"/proc/{self._main.pid}/task/{self._main.pid}/children").read_text(encoding="utf-8").split()
        if not children:
            return subprocess.CompletedProcess(command, 1, "", "")
        into = ["nsenter", "--target", children[0], "--user", "--mount", "--pid", "--preserve-credentials"]
        there = ["sh", "-c", 'cd "$0" && exec "$@"', str(cwd or self.directory / "home")]
        return subprocess.run(
            [*into, *there, *command],
            env=self._environment | environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )

    def logs(self) -> str:
        logs = sorted((self.directory / "log").iterdir())
        return "\n".join(f"{log}: {log.read_text(errors='replace', encoding='utf-8')[-1500:]}" for log in logs)

    def stop(self) -> None:
        if self._main is not None:
            self._main.kill()  # and with it, all that runs on the node
            self._main.wait()


@contextmanager
def htcondor_pool(directory: Path):
    """Launch a pool, without waiting until it is ready; skip the test if there is no HTCondor."""
    prefix = programs()
    if prefix is None:
        pytest.skip("no HTCondor: run tests/htcondor.sh build/htcondor, or on Debian 13 apt-get install htcondor")
    unshare = shutil.which("unshare") or "false"
    tried = subprocess.run([unshare, "--map-root-user", "--mount", "true"], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip(f"no user namespaces here: {os.fsdecode(tried.stderr).strip()}")
    pool = Pool(directory, prefix)
    try:
        pool.lay_out()
        pool.launch()
        yield pool
    finally:
        pool.stop()
