"""``%triton_connect``, ``%triton_status``, ``%triton_disconnect``, and completion of model names.

A user's mistake ends the cell with one message, because our errors render without a traceback.
"""

from __future__ import annotations

import re
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display
from traitlets import Float, Unicode

from eaf_inference._connection_options import OPTIONS, URL, arguments_of
from eaf_inference.connecting import connect, current
from eaf_inference.connection import Connection
from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.inference.interrupts import stopping
from eaf_inference.metrics.average import window_of
from eaf_inference.notebook.load import measuring
from eaf_inference.notebook.session import follow_session, leave_session, look_now
from eaf_inference.notebook.static_views import load_html, load_text
from eaf_inference.notebook.work import work_of
from eaf_inference.registry import linked_clusters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from IPython.core.completer import CompletionContext
    from IPython.core.interactiveshell import InteractiveShell

    from eaf_inference.dask.clusters import ClusterTable
    from eaf_inference.inference.repository import ModelTable
    from eaf_inference.metrics.snapshot import Snapshot
    from eaf_inference.metrics.verdict import Verdict

__all__ = ["TritonMagics", "load", "unload"]

_MOST_MODELS = 10  # in the output of connect and status
_MATCHER = "eaf_inference.model_names"
_MODEL_CALL = re.compile(r"""(?P<name>[^\W\d]\w*)\.model\(\s*(?P<quote>["'])(?P<typed>[^"']*)$""")


@magics_class
class TritonMagics(Magics):
    """The magics of one notebook; each notebook has its own connection."""

    name = Unicode("triton", help="The variable that %triton_connect binds by default.").tag(config=True)
    timeout = Float(10.0, help="Seconds for finding the server.").tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell, parent=shell)
        self._bound: str | None = None  # the variable of the latest connection

    @magic_arguments()
    @argument("url", nargs="?", help=URL)
    @argument("--name", help="the variable to bind (default: triton)")
    @argument("--token-file", **OPTIONS["--token-file"])
    @argument("--ca", **OPTIONS["--ca"])
    @argument("--allow-insecure-token", **OPTIONS["--allow-insecure-token"])
    @argument("--explain", **OPTIONS["--explain"])
    @line_magic
    @stopping("Stopped before the models were listed.")
    def triton_connect(self, line: str) -> None:
        """Find the facility's Triton and connect to it as this user."""
        options = parse_argstring(self.triton_connect, line)
        name = options.name or self.name
        if not name.isidentifier() or iskeyword(name):
            raise ConfigurationError(f"--name {name!r} is not a variable name. Expected one such as triton.")
        connection = connect(**arguments_of(options), timeout=self.timeout)
        self._release(name)
        self._namespace[name] = connection
        self._bound = name
        if options.explain:
            display(connection.attempts)
        look_now()
        remark = f"Connected; the variable {name!r} holds the connection."
        display(_Status(connection, *self._tables(connection), remark=remark))

    @magic_arguments()
    @line_magic
    @stopping("Stopped before the status was known.")
    def triton_status(self, line: str) -> None:
        """Show endpoint, user, token expiry, models, Dask clusters, the load, and what limits the throughput.

        Load and limit cover the current run, as in the panel and the widget; see `eaf_inference.metrics.verdict`.
        """
        parse_argstring(self.triton_status, line)
        connection = self._connection()
        measured = measuring(connection)
        connection.measure()
        verdict = measured()
        models, clusters = self._tables(connection)
        display(_Status(connection, models, clusters, verdict, work_of(connection).look()))

    @magic_arguments()
    @line_magic
    def triton_disconnect(self, line: str) -> None:
        """Close the connection and remove its variable."""
        parse_argstring(self.triton_disconnect, line)
        connection = self._connection()
        if self._bound is not None:
            self._namespace.pop(self._bound, None)
            self._bound = None
        connection.close()
        look_now()
        other = current()
        still = f" This notebook is still connected to {other.where}." if other is not None else ""
        print(f"Disconnected from {connection.where}.{still}")  # noqa: T201  (the output of a magic)

    @property
    def _namespace(self) -> dict[str, Any]:
        """The notebook's variables."""
        assert self.shell is not None  # noqa: S101  (magics always have a shell)
        namespace: dict[str, Any] = self.shell.user_ns
        return namespace

    def _connection(self) -> Connection:
        connection = self._namespace.get(self._bound) if self._bound else None
        if isinstance(connection, Connection) and not connection.closed:
            return connection
        automatic = current()  # made for a Dask cluster
        if automatic is not None:
            return automatic
        clusters = "".join(f"\n{cluster}" for cluster in linked_clusters)
        raise ConfigurationError(f"This notebook is not connected. Connect it with %triton_connect.{clusters}")

    def _release(self, name: str) -> None:
        """Close the connection in a variable before another takes its place."""
        if isinstance(self._namespace.get(name), Connection):
            self._namespace.pop(name).close()

    def _tables(self, connection: Connection) -> tuple[ModelTable, ClusterTable | None]:
        return connection.models(), connection.clusters() if connection.linked_clusters else None


def _measured(average: Snapshot) -> dict[tuple[str, str], tuple[int, float | None]]:
    """Return requests and queue time of each model in the figures."""
    return {
        (model.name, model.version): (round(model.requests_per_second * average.window), model.queue_ms)
        for model in average.within_window().models
        if model.requests_per_second is not None and average.window
    }


class _Status:
    """The output of connect and status, as HTML and as text."""

    def __init__(
        self,
        connection: Connection,
        models: ModelTable,
        clusters: ClusterTable | None,
        verdict: Verdict | None = None,
        session: Mapping[str, Any] | None = None,
        *,
        remark: str = "",
    ) -> None:
        if verdict:
            average = verdict.average
            models = models.measured(_measured(average), window_of(average).removeprefix("the "))
        self._connection, self._models, self._clusters = connection, models.busiest(), clusters
        self._verdict, self._session, self._remark = verdict, session, remark

    def __repr__(self) -> str:
        load = load_text(self._verdict, self._session) if self._verdict else ""
        tables = [self._models.text(_MOST_MODELS), str(self._clusters or ""), load]
        return "\n".join(part for part in (self._remark, repr(self._connection), *tables) if part)

    def _repr_html_(self) -> str:
        clusters = self._clusters._repr_html_() if self._clusters else ""
        load = load_html(self._verdict, self._session) if self._verdict else ""
        return self._connection._repr_html_() + self._models.html(_MOST_MODELS) + clusters + load


def _model_name_matcher(shell: InteractiveShell) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """Return IPython's matcher for model names inside ``triton.model("``."""

    @context_matcher(identifier=_MATCHER)
    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        found = _MODEL_CALL.search(context.text_until_cursor)
        connection = shell.user_ns.get(found["name"]) if found else None
        names: list[str] = []
        if found and isinstance(connection, Connection) and not connection.closed:
            try:
                names = [name for name in connection.names() if name.startswith(found["typed"])]
            except InferenceError:
                names = []  # without an answer there is no completion
        return SimpleMatcherResult(
            completions=[SimpleCompletion(text=name, type="model") for name in names],
            matched_fragment=found["typed"] if found else "",
            suppress=bool(names),
            do_not_suppress=set(),
            ordered=True,
        )

    return matcher


def load(shell: InteractiveShell) -> None:
    """Register magics and completion, and start to inform the panel."""
    shell.register_magics(TritonMagics(shell))
    unload(shell)
    shell.Completer.custom_matchers.append(_model_name_matcher(shell))
    follow_session(shell)


def unload(shell: InteractiveShell) -> None:
    """Remove completion and panel. Magics stay until the kernel restarts, because IPython cannot remove them."""
    leave_session()
    matchers = shell.Completer.custom_matchers
    matchers[:] = [each for each in matchers if getattr(each, "matcher_identifier", "") != _MATCHER]
