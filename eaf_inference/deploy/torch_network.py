"""A torch network as it is called with arrays by input name, in evaluation mode and without gradients."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy.exported import library, short
from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from eaf_inference.deploy.example import ExampleInputs
    from eaf_inference.inference.recipe import Recipe

__all__ = ["Network", "evaluating", "plain"]

_BATCHES = (
    3,
    5,
    7,
    11,
    13,
    17,
    19,
)  # rows to export with: no other axis has this size, so that none is confused with it
_CHUNK = 256  # rows of the reference together


def plain(net: Any) -> Any:
    """Return the network itself without ``DataParallel`` or ``torch.compile`` around it."""
    while (kind := type(net).__name__) in ("DataParallel", "DistributedDataParallel", "OptimizedModule"):
        net = net._orig_mod if kind == "OptimizedModule" else net.module  # noqa: SLF001
    return net


@contextlib.contextmanager
def evaluating(net: Any) -> Iterator[None]:
    """Put a network into evaluation mode, and every part of it back into its own mode afterwards."""
    torch = library("torch", "to run the network")
    modes = [(each, each.training) for each in net.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()  # it has no ONNX, and cuts padding off
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        net.eval()
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for each, training in modes:
            each.training = training


@dataclass(slots=True, eq=False)
class Network:
    """A network with the names of its inputs and outputs.

    Attributes
    ----------
    net : torch.nn.Module
    inputs : tuple of str
        In the order of the arguments.
    by_keyword : bool
        They are the names of ``forward``'s parameters.
    arrays : dict of str to numpy.ndarray
        A few rows of the example.
    lengths : dict of str to int
        The axes of constituents that are free.
    outputs : tuple of str
    remarks : list of str
    """

    net: Any
    inputs: tuple[str, ...]
    by_keyword: bool
    arrays: dict[str, NDArray[Any]]
    lengths: dict[str, int]
    recipe: Recipe | None
    outputs: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)
    _flat: frozenset[str] = frozenset()

    @classmethod
    def of(cls, net: Any, arrays: ExampleInputs, recipe: Recipe | None) -> Network:
        """Find out how a network is called with these arrays.

        Raises
        ------
        DeploymentRefused
            Its ``forward`` takes another number of them.
        """
        schema = getattr(getattr(net, "forward", None), "schema", None)
        if schema is None:
            parameters = inspect.signature(net.forward).parameters.values()
            several = any(each.kind is each.VAR_POSITIONAL for each in parameters)
            known = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
            names = [each.name for each in known]
            needed = [each.name for each in known if each.default is each.empty]
        else:
            named = schema.arguments[1:]  # without the network itself
            names, several = [each.name for each in named], False
            needed = [each.name for each in named if not each.has_default_value()]
        by_keyword = schema is None and set(needed) <= set(arrays) <= set(names)
        inputs = [name for name in names if name in arrays] if by_keyword else list(arrays)
        if not by_keyword and (len(inputs) < len(needed) or (len(inputs) > len(names) and not several)):
            raise DeploymentRefused(
                f"The network's forward takes {', '.join(names) or 'nothing'}, and there are {len(inputs)} inputs: "
                f"{', '.join(inputs)}. Expected an array for each: {{input name: array}} as the example, or a recipe "
                "with these inputs in this order. A forward that takes a dict needs a network around it that makes "
                "the dict of tensors."
            )
        rows = {name: _some(array, arrays) for name, array in arrays.items()}
        lengths = {name: axis for name, axis in arrays.lengths.items() if name in arrays}
        return cls(net, tuple(inputs), by_keyword, rows, lengths, recipe)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def is_script(self) -> bool:
        """Whether it is TorchScript, which torch exports without a wrapper around it."""
        return hasattr(getattr(self.net, "forward", None), "schema")

    def settle(self) -> None:
        """Call the network on the example, and find the layout of its inputs, its outputs and its free axes.

        Raises
        ------
        DeploymentRefused
            It fails for the example, or returns something else than arrays of rows.
        """
        made = zip(self.inputs, self.tensors(self.arrays), strict=True)
        self.arrays = {name: tensor.cpu().numpy() for name, tensor in made}
        values = self._in_some_layout()
        self.outputs = self._names(values)
        torch = library("torch", "to run the network")
        flat = []
        for name, value in zip(self.outputs, _listed(values), strict=True):
            if not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape[0] != len(self):
                got = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
                raise DeploymentRefused(
                    f"The network's output {name!r} is of {got} for {len(self)} rows. Expected tensors whose first "
                    "axis counts the rows: return one score, or several, for each."
                )
            if value.ndim == 1 and not self.is_script:
                flat.append(name)
        if flat:
            self._flat = frozenset(flat)
            self.remarks.append(
                f"Output {', '.join(flat)} has one number for each row; it is served with the shape [1] for each row."
            )
        for size in {self.arrays[name].shape[axis] for name, axis in self.lengths.items()}:
            group = [name for name, axis in self.lengths.items() if self.arrays[name].shape[axis] == size]
            if not self._takes_other_lengths(group):
                self.lengths = {name: axis for name, axis in self.lengths.items() if name not in group}
                self.remarks.append(
                    f"The network takes {', '.join(group)} only with {size} constituents, so rows are padded to it."
                )

    def resized(self, rows: int, longer: int) -> dict[str, NDArray[Any]]:
        """Return the example with another number of rows, each padded with zeros or cut along its free axis."""
        return {name: self._resized(name, array, rows, longer) for name, array in self.arrays.items()}

    def tensors(self, arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Return the arguments as tensors on the network's device, in its precision."""
        torch = library("torch", "to run the network")
        first = next(itertools.chain(self.net.parameters(), self.net.buffers()), None)
        device = torch.device("cpu") if first is None else first.device
        made, narrow = [], (torch.float16, torch.float32)
        for name in self.inputs:
            tensor = torch.from_numpy(np.ascontiguousarray(arrays[name])).to(device)
            if first is not None and first.dtype in narrow and tensor.dtype == torch.float64:
                tensor = tensor.to(first.dtype)
            made.append(tensor)
        return made

    def call(self, tensors: Sequence[Any]) -> Any:
        """Call the network itself."""
        if self.by_keyword:
            return self.net(**dict(zip(self.inputs, tensors, strict=True)))
        return self.net(*tensors)

    def module(self, torch: Any) -> Any:
        """Return the module to export: the network, with its outputs as a tuple of tensors of rows."""
        if self.is_script:
            return self.net
        network = self

        class Flat(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.net = network.net

            def forward(self, *tensors: Any) -> tuple[Any, ...]:
                return tuple(network.rows_of(network.call(tensors)))

        return Flat().eval()

    def rows_of(self, values: Any) -> list[Any]:
        """Return the outputs as they are served."""
        return [
            value.unsqueeze(-1) if name in self._flat else value
            for name, value in zip(self.outputs, _listed(values), strict=True)
        ]

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, in the network's present mode."""
        values = self.rows_of(self.call(self.tensors(arrays)))
        return {name: value.detach().cpu().numpy() for name, value in zip(self.outputs, values, strict=True)}

    def reference(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return what the network itself gives in evaluation mode, for any number of rows."""
        rows = len(next(iter(arrays.values())))
        with evaluating(self.net):
            parts = [
                self({name: array[start : start + _CHUNK] for name, array in arrays.items()})
                for start in range(0, max(rows, 1), _CHUNK)
            ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _in_some_layout(self) -> Any:
        """Call the network with constituents last, then with variables last, as transformers take them."""
        first: Exception | None = None
        turned = {name for name, axis in self.lengths.items() if self.recipe is not None and axis == 2}
        for layout in (set(), turned) if turned else (set(),):
            if layout:
                self.arrays |= {name: np.swapaxes(self.arrays[name], 1, 2) for name in layout}
                self.lengths |= dict.fromkeys(layout, 1)
            try:
                return self.call(self.tensors(self.arrays))
            except Exception as error:  # noqa: BLE001  (a network may raise anything)
                first = first or error
        if turned:
            self.arrays |= {name: np.swapaxes(self.arrays[name], 1, 2) for name in turned}
        shapes = ", ".join(f"{name} of {array.dtype} {list(array.shape)}" for name, array in self.arrays.items())
        raise DeploymentRefused(
            f"The network fails when it is called with the example, {shapes}: {short(first)}. Expected arrays that "
            "its forward takes: pass an example of the right shapes and types, or the network's own recipe."
        ) from first

    def _names(self, values: Any) -> tuple[str, ...]:
        """Name the outputs: as the network or the recipe does, or else ``output``."""
        if isinstance(values, Mapping):
            names = [str(name) for name in values]
        elif hasattr(values, "_fields"):
            names = list(values._fields)
        else:
            number = len(_listed(values))
            given = () if self.recipe is None else self.recipe.output_names
            numbered = [f"output_{place}" for place in range(number)]
            names = list(given) if len(given) == number else ["output"] if number == 1 else numbered
        if not names:
            raise DeploymentRefused("The network returns nothing. Expected at least one tensor of scores.")
        return tuple(f"{name}_output" if name in self.inputs else name for name in names)

    def _takes_other_lengths(self, names: Sequence[str]) -> bool:
        for longer in (1, 8, -1):
            arrays = self.arrays | {name: self._resized(name, self.arrays[name], len(self), longer) for name in names}
            with contextlib.suppress(Exception):
                self.call(self.tensors(arrays))
                return True
        return False

    def _resized(self, name: str, array: NDArray[Any], rows: int, longer: int) -> NDArray[Any]:
        array = array[np.arange(rows) % len(array)]
        axis = self.lengths.get(name)
        if axis is None or not longer:
            return array
        if longer < 0:
            return np.take(array, range(max(array.shape[axis] + longer, 1)), axis=axis)
        return np.pad(array, [(0, longer if at == axis else 0) for at in range(array.ndim)])


def _listed(values: Any) -> list[Any]:
    """Return a network's outputs as a list."""
    if isinstance(values, Mapping):
        return list(values.values())
    return list(values) if isinstance(values, tuple | list) else [values]


def _some(array: NDArray[Any], arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    sizes = {size for each in arrays.values() for size in each.shape[1:]}
    rows = next((size for size in _BATCHES if size not in sizes), _BATCHES[0])
    return np.ascontiguousarray(array[np.arange(rows) % len(array)])
