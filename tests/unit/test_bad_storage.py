"""Why a file cannot be read: damaged, missing, forbidden, without trees, or on storage that does not answer now."""

from __future__ import annotations

import errno
import os
import socket
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from builders import tensor
from test_typetracer import model_of

from eaf_inference.dataset.faults import of_file
from eaf_inference.dataset.parts import File, Part
from eaf_inference.dataset.reading import read
from eaf_inference.errors import UnreadableFile

pq = pytest.importorskip("pyarrow.parquet")
uproot = pytest.importorskip("uproot")

COLUMNS = {"x": np.arange(20_000.0), "y": np.random.default_rng(1).normal(size=20_000)}


@pytest.fixture(scope="module")
def model():
    return model_of((tensor("x", 1), tensor("y", 1)), (tensor("scores", 1),))


def as_root(path):
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        file.mktree("events", dict.fromkeys(COLUMNS, "float64")).extend(COLUMNS)
        file.mktree("others", {"z": "float64"})
        file["title"] = "no tree"
    return File(str(path), "events")


def as_parquet(path):
    ak.to_parquet(ak.Array(COLUMNS), path)
    return File(str(path))


def fault(file, model, **options):
    with pytest.raises(UnreadableFile) as caught:
        read(Part(0, file), model, None, **options)
    assert str(caught.value).startswith(str(file))
    return caught.value


def cut_to(size):
    return lambda content: content[: int(len(content) * size)]


def overwritten(content):
    """Overwrite a part in the middle, where the compressed data are."""
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]


@pytest.mark.parametrize("write", [as_root, as_parquet])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (cut_to(0), "empty, 0 bytes"),
        (cut_to(0.001), "damaged"),
        (cut_to(0.5), "damaged"),
        (cut_to(0.99), "damaged"),
        (overwritten, "damaged"),
        (lambda _: b"<!DOCTYPE html><html>Please log in</html>" * 50, "a web page"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "damaged"),
    ],
)
def test_a_damaged_file_is_told_apart_and_not_tried_again(model, tmp_path, write, change, reason):
    file = write(tmp_path / ("a.root" if write is as_root else "a.parquet"))
    assert read(Part(0, file), model, None).entries == 20_000
    path = Path(file.path)
    path.write_bytes(change(path.read_bytes()))
    found = fault(file, model)
    assert (found.reason, found.temporary) == (reason, False)
    assert any(advice in str(found) for advice in ("Copy or produce it again", "Copy it again", "It is a web page"))


@pytest.mark.parametrize("stop", [None, 10_000])
def test_a_changed_number_shows_in_pages_with_checksums(model, tmp_path, stop):
    table = ak.to_arrow_table(ak.Array(COLUMNS), extensionarray=False)
    path = tmp_path / "a.parquet"
    plain = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(table, path, **plain)
    part = Part(0, File(str(path)), 0, stop)
    assert read(part, model, None).data["y"][5] == COLUMNS["y"][5]
    path.write_bytes(path.read_bytes().replace(COLUMNS["y"][5].tobytes(), np.float64(1.0).tobytes(), 1))
    with pytest.raises(UnreadableFile) as caught:
        read(part, model, None)
    assert (caught.value.reason, caught.value.temporary) == ("damaged", False)


def test_a_damaged_basket_is_a_fault_of_the_file_also_with_nanoevents(tmp_path):
    schema = pytest.importorskip("coffea.nanoevents").PFNanoAODSchema
    source = Path(__file__).parents[2] / "notebooks" / "cms_pfnano.root"
    with uproot.open(f"{source}:Events") as tree:
        start = int(tree["PFCands_eta"].member("fBasketSeek")[0]) + 120
    content = source.read_bytes()
    (tmp_path / "a.root").write_bytes(content[:start] + bytes(40) + content[start + 40 :])
    recipe = {"pf_x": {"pt": {}, "eta": {}}, "pf_mask": {"pf_mask": {}}}
    model = model_of((tensor("pf_x", 2, -1), tensor("pf_mask", 1, -1)), (tensor("scores", 1),), recipe=recipe)
    part = Part(0, File(str(tmp_path / "a.root"), "Events"))
    with pytest.raises(UnreadableFile, match="decompress") as caught, pytest.warns(RuntimeWarning):
        read(part, model, lambda events: events.FatJet.constituents.pf, schema=schema)
    assert (caught.value.reason, caught.value.temporary) == ("damaged", False)
    with pytest.raises(ZeroDivisionError), pytest.warns(RuntimeWarning):
        read(part, model, lambda _: 1 // 0, schema=schema)


def test_trees_that_a_file_lacks_are_told_apart_from_no_entries(model, tmp_path):
    path = as_root(tmp_path / "a.root").path
    with uproot.recreate(tmp_path / "none.root") as file:
        file["title"] = "no tree"
    with uproot.recreate(tmp_path / "one.root") as file:
        file.mktree("events", dict.fromkeys(COLUMNS, "float64"))
    for file, reason, message in (
        (
            File(path, "jets"),
            "no tree jets",
            "has no tree 'jets'. Expected file.root:tree, with one of events, others",
        ),
        (File(path), "which tree?", "has several trees. Expected file.root:tree, with one of events, others"),
        (File(path, "others"), "lacks x and 1 more", "lacks x, y; it has z"),
        (File(str(tmp_path / "none.root")), "no tree", "has no tree. Expected a ROOT file with a TTree"),
        (File(str(tmp_path / "none.root"), "events"), "no tree", "has no tree"),
    ):
        found = fault(file, model)
        assert (found.reason, found.temporary) == (reason, False)
        assert message in str(found)
    assert read(Part(0, File(str(tmp_path / "one.root"))), model, None).entries == 0


def test_missing_and_unsupported_files_are_not_tried_again(model, tmp_path):
    for name in ("a.root", "a.parquet", "no/such/folder/a.root"):
        found = fault(File(str(tmp_path / name), "events" if name.endswith("root") else ""), model)
        assert (found.reason, found.temporary) == ("no such file", False)
    assert fault(File(str(tmp_path / "a.csv")), model).reason == "unsupported type"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_not_tried_again(model, tmp_path):
    file = as_parquet(tmp_path / "a.parquet")
    Path(file.path).chmod(0)
    found = fault(file, model)
    assert (found.reason, found.temporary) == ("no permission", False)


class Status(Exception):
    """An HTTP client's error."""

    def __init__(self, status):
        super().__init__(f"{status}, message='…'")
        self.status = status


class ReadTimeoutError(Exception):
    """Named as urllib3's and botocore's."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, "Input/output error"), "storage does not answer"),
        (OSError(errno.ESTALE, "Stale file handle"), "storage does not answer"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "storage does not answer"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "storage does not answer"),
        (OSError(errno.EMFILE, "Too many open files"), "storage does not answer"),
        (TimeoutError(), "storage does not answer"),
        (Status(503), "storage does not answer"),
        (Status(429), "storage does not answer"),
        (ReadTimeoutError("endpoint"), "storage does not answer"),
        (OSError("[ERROR] Server responded with an error: [3012] Internal server error"), "storage does not answer"),
        (FileNotFoundError("[FATAL] Socket timeout"), "storage does not answer"),
        (OSError("[ERROR] Operation expired"), "storage does not answer"),
        (OSError("Failed to open file: [FATAL] Connection error"), "storage does not answer"),
        (OSError("XRootD error: [FATAL] Invalid address"), "storage does not answer"),
        (socket.gaierror(-3, "Temporary failure in name resolution"), "storage does not answer"),
        (FileNotFoundError("[ERROR] Server responded with an error: [3011] No such file"), "no such file"),
        (OSError("[ERROR] Server responded with an error: [3010] Permission denied"), "no permission"),
        (OSError("[FATAL] Auth failed: No protocols left to try"), "no permission"),
        (OSError(errno.ENOENT, "No such file or directory"), "no such file"),
        (OSError(errno.EACCES, "Permission denied"), "no permission"),
        (OSError(errno.EPERM, "Operation not permitted"), "no permission"),
        (Status(403), "no permission"),
        (Status(404), "no such file"),
        (Status(416), "damaged"),  # the file is shorter than it says
        (OSError("Corrupt snappy compressed data."), "damaged"),  # of pyarrow, without a number
        (MemoryError(), "not enough memory"),
    ],
)
def test_errors_of_storage_say_whether_they_may_pass(error, reason):
    def wrapped():
        raise FileNotFoundError("https://storage/a.root") from error

    def direct():
        raise error

    for raise_it in (direct, wrapped):
        with pytest.raises(UnreadableFile) as caught:
            of_file(File("/store/a.root", "events"), raise_it)
        if raise_it is direct or reason != "damaged":
            assert caught.value.reason == reason
            assert caught.value.temporary is (reason in ("storage does not answer", "not enough memory"))


class Storage(BaseHTTPRequestHandler):
    """Serves a folder with byte ranges, and fails if asked: with a status, or by closing the connection."""

    def __init__(self, state, *arguments):
        self.state = state
        super().__init__(*arguments)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        fails = self.state["fails"]
        if fails == "close":
            self.close_connection = True
            return
        content = (self.state["folder"] / self.path.strip("/")).read_bytes() if not fails else b""
        asked = self.headers.get("Range")
        start, stop = 0, len(content)
        if asked and not fails:
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last) + 1, stop)
        self.send_response(fails or (206 if asked else 200))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        if asked and not fails:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:stop])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def storage(tmp_path):
    state = {"folder": tmp_path, "fails": 0}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Storage, state)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", state
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("write", [as_root, as_parquet])
def test_a_web_server_that_fails_for_a_while_is_temporary(model, storage, tmp_path, write):
    pytest.importorskip("aiohttp")
    url, state = storage
    name = "a.root" if write is as_root else "a.parquet"
    local = write(tmp_path / name)
    file = File(f"{url}/{name}", local.tree)
    passing = "storage does not answer"
    failures = {503: passing, 429: passing, "close": passing, 404: "no such file", 403: "no permission"}
    for fails, reason in failures.items():
        state["fails"] = fails
        found = fault(file, model)
        assert (fails, found.reason, found.temporary) == (fails, reason, reason == passing)
    state["fails"] = 0
    got = read(Part(0, file), model, None)
    for column, values in COLUMNS.items():
        np.testing.assert_array_equal(got.data[column], values)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert fault(file, model).reason == "damaged"
