"""A model store of which a Triton by its rules asks after every single operation: what would a poll load now?"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.deploy import file_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from eaf_inference.deploy.store import Store

BACKENDS = ("onnxruntime", "python")
IGNORED = (".upload.json", "deployed.pbtxt")  # in a version's directory, not the model's


class Killed(BaseException):
    """The process is killed: nothing of it runs any more, no clean-up either."""


def config_of(name: str, version: int, *, note: str = "") -> str:
    policy = f"version_policy {{ specific {{ versions: [{version}] }} }}"
    return f'name: "{name}"\nbackend: "onnxruntime"\n{policy}\n# {note}\n'


def deployed_versions(store, name: str) -> list[int]:
    """Return the versions of a model that can be published again."""
    paths = (path.split("/") for path in store.files(name))
    return sorted(int(path[0]) for path in paths if path[1:] == ["deployed.pbtxt"])


def loads(files: Mapping[str, bytes]) -> dict[str, tuple[int, str, frozenset] | None]:
    """Return what Triton loads of each model: version, config.pbtxt and files; None if the load fails."""
    models: dict[str, dict[str, bytes]] = {}
    for path, content in files.items():
        model, _, inside = path.partition("/")
        models.setdefault(model, {})[inside] = content
    return {model: _load(inside) for model, inside in models.items()}


def _load(files: Mapping[str, bytes]) -> tuple[int, str, frozenset] | None:
    config = files.get("config.pbtxt")
    versions: dict[int, set] = {}
    for path, content in files.items():
        version, _, name = path.partition("/")
        if name and version.isdecimal():
            known = name in IGNORED or name.endswith("/")
            versions.setdefault(int(version), set()).update([] if known else [(name, content)])
    if config is None:  # Triton completes it, and takes the newest
        return (max(versions), "", frozenset(versions[max(versions)])) if versions else None
    text = config.decode()
    backend = re.search(r'^backend: "(\w+)"$', text, re.MULTILINE)
    if backend and backend[1] not in BACKENDS:
        return None
    pinned = [int(each) for each in re.findall(r"versions: \[(\d+)\]", text)] or sorted(versions)[-1:]
    return next(((each, text, frozenset(versions[each])) for each in pinned if each in versions), None)


class Watch:
    """Polls after every operation, and can interrupt, kill, or let something else run at one of them.

    Attributes
    ----------
    served : dict of str to list
        The versions of each model that were served one after another, with None when it was not.
    count : int
        Operations so far.
    """

    def __init__(self, snapshot: Callable[[], dict[str, bytes]]) -> None:
        self._snapshot = snapshot
        self._allowed: set[tuple[str, int, str, frozenset]] = set()
        self.served: dict[str, list[int | None]] = {}
        self.names: list[str] = []
        self._watching = True
        self.reset()

    def reset(
        self, at: int | str = 0, error: type[BaseException] | None = None, meanwhile: Callable | None = None
    ) -> None:
        """Count from here; at the operation with this number or name, fail before it or run something after it."""
        self.count, self._dead = 0, False
        self._at, self._error, self._meanwhile = at, error, meanwhile

    @contextmanager
    def between_polls(self) -> Iterator[None]:
        """Let all of this happen, then poll once."""
        self._watching = False
        try:
            yield
        finally:
            self._watching = True
        self.poll()

    def allow(self, model: str, version: int, config: str, files: Mapping[str, bytes]) -> None:
        self._allowed.add((model, version, config, frozenset(files.items())))

    def poll(self) -> None:
        loaded = loads(self._snapshot())
        for model in {*loaded, *self.served}:
            history = self.served.setdefault(model, [None])
            if model not in loaded:
                now = None  # its directory is gone: Triton unloads it
            elif (found := loaded[model]) is None:
                now = history[-1]  # the load fails: what was served before stays
            else:
                assert (model, *found) in self._allowed, f"a poll after {self.names[-3:]} loads {model}: {found}"
                now = found[0]
            if now != history[-1]:
                history.append(now)

    def around(self, name: str, operation: Callable, *arguments, **options):
        if not self._watching:
            return operation(*arguments, **options)
        if self._dead:
            raise Killed
        self.count += 1
        self.names.append(name)
        if self._at in (self.count, name) and self._error is not None:
            self._dead = self._error is Killed
            raise self._error
        try:
            return operation(*arguments, **options)
        finally:
            self.poll()
            if self._at in (self.count, name) and (meanwhile := self._meanwhile):
                self.reset()
                meanwhile()


class WatchedOs:
    """`os`, with a poll after every call that changes a file system."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._names: dict[int, str] = {}  # of the files that were made, by descriptor

    def __getattr__(self, name: str):
        function = getattr(os, name)
        if name in ("mkdir", "rename", "unlink", "rmdir"):
            return lambda *paths, **options: self._watch.around(f"{name} {paths[-1]}", function, *paths, **options)
        return function

    def open(self, path, flags, mode=0o777, *, dir_fd=None) -> int:
        if not flags & os.O_CREAT:
            return os.open(path, flags, mode, dir_fd=dir_fd)
        descriptor = self._watch.around(f"create {path}", os.open, path, flags, mode, dir_fd=dir_fd)
        self._names[descriptor] = path
        return descriptor

    def fdopen(self, descriptor: int, mode: str):
        if mode == "rb":
            return os.fdopen(descriptor, mode)
        return _WatchedFile(os.fdopen(descriptor, mode, buffering=0), self._names[descriptor], self._watch)


class _WatchedFile:
    """A file that is written in two halves."""

    def __init__(self, file, name: str, watch: Watch) -> None:
        self._file, self._name, self._watch = file, name, watch

    def write(self, content) -> int:
        half = len(content) // 2
        self._watch.around(f"write half of {self._name}", self._file.write, content[:half])
        self._watch.around(f"write the rest of {self._name}", self._file.write, content[half:])
        return len(content)

    def flush(self) -> None:
        self._file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def watch_files(monkeypatch, root) -> Watch:
    """Watch all that `FilePlace` does in this directory."""

    def snapshot() -> dict[str, bytes]:
        found = {}
        for directory, _, names in os.walk(root):
            path = os.path.relpath(directory, root)
            if path != ".":  # Triton does not look at files in the root
                found[f"{path}/"] = b""
                found |= {f"{path}/{name}": Path(directory, name).read_bytes() for name in names}
        return found

    watch = Watch(snapshot)
    monkeypatch.setattr(file_place, "os", WatchedOs(watch))
    return watch


class Flows:
    """What a user does with a model, each with what has to be there before and what may be served meanwhile.

    Parameters
    ----------
    watch
    make_store
        Makes a store, as a new process of a user would.
    directory
        For the local files.
    """

    MODEL = "alice.tagger"
    NAMES = ("first", "second", "rollback", "withdraw_first", "withdraw_second", "remove")

    def __init__(self, watch: Watch, make_store: Callable[[], Store], directory: Path) -> None:
        self.watch, self.make_store, self._directory = watch, make_store, directory

    def prepare(self, name: str) -> Store:
        """Return the store in which the flow starts."""
        store = self.make_store()
        for _ in range({"first": 0, "withdraw_first": 0, "rollback": 2}.get(name, 1)):
            with self.watch.between_polls():
                self.deploy(store)
        return store

    def deploy(self, store: Store, *, withdraw: bool = False) -> int:
        """Upload the next version, whose content is like no other's, and publish it."""
        content = secrets.token_hex(8).encode()
        files = {"model.onnx": content, "data/weights.bin": content * 2}
        local = Path(tempfile.mkdtemp(dir=self._directory))
        for number, each in enumerate(files.values()):
            (local / str(number)).write_bytes(each)
        version = store.upload(self.MODEL, {path: local / str(n) for n, path in enumerate(files)})
        config = config_of(self.MODEL, version, note=content.decode())
        self.watch.allow(self.MODEL, version, config, files)
        previous = store.config(self.MODEL)
        store.publish(self.MODEL, version, config)
        if withdraw:
            store.withdraw(self.MODEL, version, previous)
        return version

    def run(self, name: str, store: Store) -> None:
        if name == "rollback":
            assert store.rollback(self.MODEL) == 1
        elif name == "remove":
            store.remove(self.MODEL)
        else:
            self.deploy(store, withdraw=name.startswith("withdraw"))

    def served(self) -> list[int | None]:
        """Return the versions that were served one after another."""
        return self.watch.served.get(self.MODEL, [None])


SERVED = {
    "first": [None, 1],
    "second": [None, 1, 2],
    "rollback": [None, 1, 2, 1],
    "withdraw_first": [None, 1, None],
    "withdraw_second": [None, 1, 2, 1],
    "remove": [None, 1, None],
}


def watched_s3() -> type:
    """Return s3fs's file system with a poll, by its `watch`, after every call that changes the store."""
    import s3fs
    from fsspec.asyn import sync

    class WatchedFileSystem(s3fs.S3FileSystem):
        watch: Watch

        def pipe_file(self, *arguments, **options):
            return self.watch.around("pipe", sync, self.loop, self._pipe_file, *arguments, **options)

        def put_file(self, *arguments, **options):
            return self.watch.around("put", sync, self.loop, self._put_file, *arguments, **options)

        def rm(self, *arguments, **options):
            return self.watch.around("rm", sync, self.loop, self._rm, *arguments, **options)

    return WatchedFileSystem


def watch_moto(bucket: str, prefix: str) -> Watch:
    """Watch what is below this prefix in moto's S3, which runs in this process."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    keys = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys
    start = f"{prefix}/"
    return Watch(lambda: {path[len(start) :]: keys[path].value for path in list(keys) if path.startswith(start)})
