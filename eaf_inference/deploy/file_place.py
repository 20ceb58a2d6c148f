"""A model store in a directory: a local disk, NFS, EOS or CephFS.

Other users may be able to write beside it. So each path is opened directory by directory without following symbolic
links, and everything happens relative to the opened directory.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from eaf_inference.deploy import places
from eaf_inference.deploy.places import CLAIM, StoredFile
from eaf_inference.deploy.storage_errors import explained
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FilePlace"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Triton's account reads what a user writes, whatever her umask is.
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755
_DRAFT = ".draft-"  # names in the root, on their way into a model
_TIME_STEP = 0.01  # seconds: a tick of Linux's clock for files
_LARGEST_READ = 16 * 1024 * 1024


class FilePlace:
    """The `Place` in a directory that exists.

    Parameters
    ----------
    url : str
        ``file:///path`` or a path.
    """

    def __init__(self, url: str) -> None:
        self.root = _path(url)
        with explained("open", url):
            os.close(os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def files(self, prefix: str) -> dict[str, StoredFile]:
        model = prefix.partition("/")[0]
        found: dict[str, StoredFile] = {}
        with explained("list", str(self.root)), ExitStack() as stack:
            root = stack.enter_context(self._opened(()))
            inside = "/" in prefix
            for name in [model] if inside else [each for each in _names_in(root) if each.startswith(prefix)]:
                found |= _below(root, name, f"{name}/")
        return {path: file for path, file in found.items() if path.startswith(prefix)}

    def read(self, path: str) -> bytes | None:
        *directories, name = path.split("/")
        with explained("read", str(self.root / path)):
            try:
                with self._opened(directories) as directory:
                    descriptor = os.open(name, _READ, dir_fd=directory)
            except FileNotFoundError:
                return None
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ConfigurationError(f"{self.root / path} is not a regular file. Expected one.")
                return file.read(_LARGEST_READ)

    def begin(self, model: str, config: str) -> bool:
        # A directory with the file in it appears in one step, and never in place of one with anything in it.
        draft = f"{_DRAFT}{secrets.token_hex(8)}"
        with explained("write", str(self.root / model)), self._opened(()) as root:
            _make_directory(draft, root)
            try:
                with _opened(draft, root) as directory:
                    _write("config.pbtxt", config.encode(), directory)
                os.rename(draft, model, src_dir_fd=root, dst_dir_fd=root)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    return False
                raise
            finally:
                _delete(draft, root)
            os.fsync(root)
        return True

    def claim(self, model: str, version: int, note: bytes) -> bool:
        with explained("write", str(self.root / model / str(version))), ExitStack() as stack:
            _delete_old_drafts(stack.enter_context(self._opened(())))
            directory = stack.enter_context(self._opened([model]))
            try:
                _make_directory(str(version), directory)
            except FileExistsError:
                return False
            with _opened(str(version), directory) as inside:
                _write(CLAIM, note, inside)
        return True

    def put(self, source: Path, path: str) -> None:
        model, version, *below, name = path.split("/")
        with explained("write", str(self.root / path)), ExitStack() as stack:
            directory = stack.enter_context(self._opened([model, version]))
            for each in below:
                with suppress(FileExistsError):
                    _make_directory(each, directory)
                directory = stack.enter_context(_opened(each, directory))
            descriptor = os.open(name, _NEW_FILE, _FILE_MODE, dir_fd=directory)
            with os.fdopen(descriptor, "wb") as target, source.open("rb") as content:
                os.fchmod(descriptor, _FILE_MODE)
                shutil.copyfileobj(content, target, 4 * 1024 * 1024)
                target.flush()
                os.fsync(descriptor)
            os.fsync(directory)

    def replace(self, path: str, content: bytes) -> None:
        *directories, name = path.split("/")
        # The draft is a file in the root, where Triton looks for directories only: a new file beside a served
        # version makes it load that version again.
        draft = f"{_DRAFT}{secrets.token_hex(8)}"
        target = self.root / path
        with explained("write", str(target)), self._opened(()) as root, self._opened(directories) as directory:
            try:
                _write(draft, content, root)
                os.rename(draft, name, src_dir_fd=root, dst_dir_fd=directory)
            except BaseException:
                _delete(draft, root)
                raise
            os.fsync(directory)

    def await_later_time(self) -> None:
        whole = self.root.stat().st_mtime_ns % 1_000_000_000 == 0  # of the last draft, as on AFS
        time.sleep(1.0 if whole else _TIME_STEP)

    def delete(self, path: str) -> None:
        *directories, name = path.split("/")
        with explained("delete", str(self.root / path)):
            try:
                with self._opened(directories) as directory:
                    _delete(name, directory)
            except FileNotFoundError:
                return

    @contextmanager
    def _opened(self, directories: Sequence[str]) -> Iterator[int]:
        """Open a directory below the root."""
        with ExitStack() as stack:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            for name in directories:
                descriptor = stack.enter_context(_opened(name, descriptor))
            yield descriptor


def _path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{url!r} is not a model store. Expected s3://bucket/prefix, file:///path or an absolute path."
        )
    path = Path(unquote(parts.path) if parts.scheme else url)
    if not path.is_absolute():
        raise ConfigurationError(f"The model store {url!r} is a relative path. Expected an absolute one.")
    return path


@contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _names_in(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _make_directory(name: str, parent: int) -> None:
    os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
    with _opened(name, parent) as made:
        inherited = os.fstat(made).st_mode & stat.S_ISGID
        os.fchmod(made, _DIRECTORY_MODE | inherited)


def _delete_old_drafts(root: int) -> None:
    """Delete what killed processes left in the root, where Triton takes a directory for a model."""
    for name in _names_in(root):
        if name.startswith(_DRAFT):
            with suppress(OSError):  # another user's, or deleted meanwhile
                if os.stat(name, dir_fd=root, follow_symlinks=False).st_mtime < time.time() - places.ABANDONED:
                    _delete(name, root)


def _write(name: str, content: bytes, parent: int) -> None:
    descriptor = os.open(name, _NEW_FILE, _FILE_MODE, dir_fd=parent)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, _FILE_MODE)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _delete(name: str, parent: int) -> None:
    """Delete a file, a symbolic link, or a directory with everything in it."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        with _opened(name, parent) as directory:
            for each in _names_in(directory):
                _delete(each, directory)
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _below(parent: int, name: str, path: str) -> dict[str, StoredFile]:
    """Return the files in a directory, by their paths; symbolic links are left out."""
    found: dict[str, StoredFile] = {}
    try:
        with _opened(name, parent) as directory:
            for each in _names_in(directory):
                status = os.stat(each, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    found |= _below(directory, each, f"{path}{each}/")
                elif stat.S_ISREG(status.st_mode):
                    found[f"{path}{each}"] = StoredFile(status.st_size, status.st_mtime)
    except (FileNotFoundError, NotADirectoryError):  # removed meanwhile; a file, or a symbolic link
        return found
    return found
