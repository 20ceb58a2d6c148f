"""Dask Gateway's own Slurm back end, for a Slurm whose configuration is in a directory of its own.

The gateway imports this module, and nothing else does.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
from pathlib import Path
from typing import Any

from dask_gateway_server.backends.jobqueue.slurm import SlurmBackend
from traitlets import Unicode

from eaf_facility.process.ports import LOOPBACK

__all__ = ["SlurmJobs"]


class SlurmJobs(SlurmBackend):  # type: ignore[misc] # dask_gateway_server has no types
    """Runs schedulers and workers as Slurm jobs.

    As root, it runs Slurm's commands as the user who made the cluster, with sudo. Another user's gateway runs them
    itself, and refuses clusters of other users.
    """

    slurm_conf = Unicode(help="The path of slurm.conf", config=True)
    default_host = LOOPBACK

    def get_submit_cmd_env_stdin(self, cluster: Any, worker: Any = None) -> tuple[list[str], dict[str, str], str]:
        command, environment, script = super().get_submit_cmd_env_stdin(cluster, worker)
        output = next(place for place, option in enumerate(command) if option.startswith("--output="))
        log = Path(command[output].partition("=")[2])
        # beside the staging directory, which is removed with the cluster
        command[output] = f"--output={log.parent.parent / f'{cluster.name}-{log.name}'}"
        return command, environment | self._where(), script  # Slurm passes its own variables on to jobs

    def get_stop_cmd_env(self, job_id: str) -> tuple[list[str], dict[str, str]]:
        command, environment = super().get_stop_cmd_env(job_id)
        return command, environment | self._where()

    def get_status_cmd_env(self, job_ids: list[str]) -> tuple[list[str], dict[str, str]]:
        command, environment = super().get_status_cmd_env(job_ids)
        return command, environment | self._where()

    def _where(self) -> dict[str, str]:
        return {"SLURM_CONF": self.slurm_conf}

    async def do_as_user(self, user: str, action: str, **arguments: Any) -> tuple[int, str, str]:
        """Submit or cancel a job as this user."""
        if os.geteuid() == 0:
            return await super().do_as_user(user, action, **arguments)  # type: ignore[no-any-return]
        own = pwd.getpwuid(os.geteuid()).pw_name
        if user != own:
            raise PermissionError(f"this gateway runs as {own}, so it cannot start jobs of {user}: start it as root")
        launcher = await asyncio.create_subprocess_exec(
            self.dask_gateway_jobqueue_launcher,
            env={"HOME": str(Path.home())},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await launcher.communicate(json.dumps({"action": action, **arguments}).encode())
        result = json.loads(output)
        if not result["ok"]:
            raise RuntimeError(result["error"])
        return result["returncode"], result["stdout"], result["stderr"]
