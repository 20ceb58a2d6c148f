"""What torch's second exporter writes gives what the network gives, and is whole."""

from __future__ import annotations

import numpy as np
import pytest

from eaf_inference.deploy.export import export
from eaf_inference.deploy.torch_export import forward_names
from eaf_inference.errors import DeploymentRefused

onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

# torch says so of TorchScript
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.[a-z]+` is deprecated:DeprecationWarning")


class Logarithm(torch.nn.Module):
    """The logarithm of a distance, as between the particles of a jet: 1e-8 keeps it finite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x**2 + 1e-8).log()


def test_small_constants_stay_and_no_empty_file_of_weights_is_uploaded(tmp_path):
    pytest.importorskip("onnxscript")
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Logarithm(), (torch.ones(3, 2),), dynamic_shapes=shapes)
    made = export(program, tmp_path)
    assert all(path.stat().st_size for path in made.files.values())
    rows = np.zeros((5, 2), np.float32)
    (scores,) = onnxruntime.InferenceSession(made.onnx).run(None, {"x": rows})
    np.testing.assert_allclose(scores, np.log(rows + 1e-8), rtol=1e-5)


class Eigenvalues(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x)


def test_a_program_that_torch_cannot_convert_is_refused_with_what_to_do(tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(DeploymentRefused, match=r"cannot be converted to ONNX: torch says: .*deploy the network"):
        export(torch.export.export(Eigenvalues(), (torch.ones(3, 2, 2),)), tmp_path)


def test_a_networks_name_for_itself_is_no_input_of_torchscript():
    class Own(torch.nn.Module):
        def forward(net, x: torch.Tensor) -> torch.Tensor:  # noqa: N805
            return x

    assert forward_names(torch.jit.script(Own())) == ["x"]
