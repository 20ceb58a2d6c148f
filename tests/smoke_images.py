"""Follow a Dockerfile of docs/kubernetes/images step by step in a Debian root, and try what its pod would run.

    python tests/smoke_images.py service
    python tests/smoke_images.py hub

As root, with mmdebstrap, after the command in the Dockerfile that makes the wheel. It takes minutes and 1 GB in a
temporary directory. Debian 13 and its Python 3.13 stand in for the base image.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

FILES = Path(__file__).parents[1] / "docs" / "kubernetes"
IMAGES = FILES / "images"
PACKAGES = "python3,python3-pip,ca-certificates"
BASES = {  # commands that make of Debian what the base image has, and the user that it ends with
    "python:3.12-slim": ([], "0"),
    # the versions of its requirements.txt
    "quay.io/jupyterhub/k8s-hub:4.4.0": (
        [
            "useradd --uid 1000 --create-home jovyan",
            "python3 -m pip install --quiet jupyterhub==5.5.0 jupyterhub-kubespawner==7.1.0 pyyaml",
        ],
        "jovyan",
    ),
}
HUB = """
import sys, yaml
from traitlets.config import Config
values = yaml.safe_load(open("/tmp/values.yaml", encoding="utf-8"))
c = Config()
exec(values["hub"]["extraConfig"]["eaf-inference"], {"c": c})
print("configured", c.JupyterHub.services[0]["name"], "with Python", sys.version.split()[0])
"""


class Root:
    """A directory that stands for an image."""

    def __init__(self, path: Path):
        self.path = path
        make = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "trixie", str(path)]
        subprocess.run(make, check=True)
        for file in ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(file, path / file[1:])
        for marker in path.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()  # the images' Python is not Debian's
        (path / "usr/bin/python").symlink_to("python3")

    def command(self, user: str, line: str, **environment: str) -> list[str]:
        """Return a command that runs a line of shell as a user in this root, with its own /proc."""
        home = "/root" if user == "0" else f"/home/{user}" if user.isalpha() else "/"
        variables = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": home} | environment
        given = [f"{name}={value}" for name, value in variables.items()]
        who = user if ":" in user or user == "0" else f"{user}:"
        enter = ["chroot", f"--userspec={who}", str(self.path), "/usr/bin/env", "-i", *given, "/bin/sh", "-ec", line]
        mount = f'mount -t proc proc "{self.path}/proc" && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh", *enter]

    def run(self, user: str, line: str, **environment: str) -> None:
        """Run a line of shell to its end; it must succeed."""
        print(f"{user}: {line}", flush=True)
        subprocess.run(self.command(user, line, **environment), check=True)

    def follow(self, dockerfile: Path) -> str:
        """Do what a Dockerfile says and return the user that it ends with."""
        user = "0"
        for line in dockerfile.read_text(encoding="utf-8").splitlines():
            word, _, rest = line.partition(" ")
            if word == "FROM":
                commands, user = BASES[rest]
                for each in commands:
                    self.run("0", each)
            elif word == "COPY":
                pattern, target = rest.split()
                for found in sorted(dockerfile.parent.glob(pattern)):
                    shutil.copy(found, self.path / target.strip("/"))
            elif word == "RUN":
                self.run(user, rest)
            elif word == "USER":
                user = rest
            else:
                assert word in ("#", ""), f"{word} is not known here"
        return user


def container(file: str, name: str) -> dict[str, object]:
    """Return a container of a manifest."""
    for each in yaml.safe_load_all((FILES / "facility" / file).read_text(encoding="utf-8")):
        if each["kind"] == "Deployment":
            spec = each["spec"]["template"]["spec"]
            for found in [*spec.get("initContainers", []), *spec["containers"]]:
                if found["name"] == name:
                    return found
    raise LookupError(name)


def service(root: Root, user: str) -> None:
    """Make Envoy's configuration and start the token service, as the pods do."""
    shutil.copytree(FILES / "facility", root.path / "etc/eaf-inference")
    for each in ("etc/envoy/made", "var/lib/eaf-inference"):
        (root.path / each).mkdir(parents=True)
        os.chown(root.path / each, 1000, 1000)
    maker = container("edge-proxy.yaml", "configuration")
    root.run(user, " ".join(maker["command"]), **{each["name"]: each["value"] for each in maker["env"]})
    assert (root.path / "etc/envoy/made/tls-secret.yaml").exists()
    token = container("token-service.yaml", "token-service")
    environment = {each["name"]: each["value"] for each in token["env"]}
    environment["JUPYTERHUB_SERVICE_URL"] = "http://127.0.0.1:8010"
    child = subprocess.Popen(root.command(user, f"exec {' '.join(token['command'])}", **environment))
    try:
        while (status := answer(token["readinessProbe"]["httpGet"]["path"])) != http.client.OK:
            assert child.poll() is None, "the token service ended"
            time.sleep(0.2)
        print(f"the token service answered {status}")
    finally:
        child.terminate()
        child.wait()


def answer(path: str) -> int | None:
    """Return the HTTP status at a path of the token service."""
    connection = http.client.HTTPConnection("127.0.0.1", 8010, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def hub(root: Root, user: str) -> None:
    """Run the code of jupyterhub-values.yaml beside the Hub."""
    shutil.copy(FILES / "jupyterhub-values.yaml", root.path / "tmp/values.yaml")
    (root.path / "tmp/try.py").write_text(HUB, encoding="utf-8")
    root.run(user, "jupyterhub --version && python3 /tmp/try.py")


def main() -> None:
    """Try one image."""
    (name,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        root = Root(Path(directory) / "root")
        user = root.follow(IMAGES / f"{name}.Dockerfile")
        {"service": service, "hub": hub}[name](root, user)


if __name__ == "__main__":
    main()
