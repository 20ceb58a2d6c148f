"""The program of the S3 stand-in: moto's server behind access rules, for one bucket.

Its arguments are a port, which may be held by another process of this user with SO_REUSEPORT, the bucket, an object
that it holds from the start, and a private file with the keys.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import Client

from eaf_facility.process.ports import LOOPBACK
from eaf_facility.servers.s3_access import guarded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ERROR = 400  # and above


class _Handler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log refusals and errors only: Triton polls every second."""
        if not str(code).isdecimal() or int(code) >= _ERROR:
            super().log_request(code, size)


def reading_only(app: WSGIApplication, key: str) -> WSGIApplication:
    """Return an application that lets this access key, which is Triton's, only read S3.

    STS, which also answers GET, would give it keys that may write.
    """

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD") and "/s3/aws4_request" in authorization
        if f"={key}/" in authorization and not reads:
            start_response("403 Forbidden", [("Content-Length", "0"), ("Connection", "close")])
            return []
        return app(environ, start_response)

    return application


def main(port: str, bucket: str, marker: str, keys: str) -> None:
    """Serve until the process ends."""
    known = json.loads(Path(keys).read_text(encoding="utf-8"))
    moto = DomainDispatcherApplication(create_backend_app)
    for path in (f"/{bucket}", f"/{bucket}/{marker}"):
        made = Client(moto).put(path, headers={"Content-Length": "0"})
        if made.status_code >= _ERROR:
            raise SystemExit(f"moto did not make {path}: {made.get_data(as_text=True)}")
    app = guarded(moto, {each["key"]: each["secret"] for each in known.values()})
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((LOOPBACK, int(port)))
        listening.listen(128)
        make_server(
            LOOPBACK,
            int(port),
            reading_only(app, known["triton"]["key"]),
            threaded=True,
            request_handler=_Handler,
            fd=listening.fileno(),
        ).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
