"""Turn what a user has into the files of a model's version: a network, an estimator, a file or a directory.

Every library is optional and imported when its kind of model is exported. Nothing is unpickled.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_inference._text import did_you_mean
from eaf_inference.deploy.estimators import export_estimator
from eaf_inference.deploy.example import example_inputs
from eaf_inference.deploy.exported import Export
from eaf_inference.deploy.repository_directory import export_directory
from eaf_inference.deploy.saved import KINDS, FileKind, kind_of_file, onnx_export
from eaf_inference.deploy.torch_export import export_network, forward_names
from eaf_inference.deploy.torch_files import export_program, export_script, read_program, read_script
from eaf_inference.errors import DeploymentRefused
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from eaf_inference.inference.recipe import Recipe

__all__ = ["Export", "export"]

_KERAS = (
    "A Keras model is deployed as a SavedModel. Write it with model.export(DIRECTORY), or tf.saved_model.save of an "
    "older Keras, and pass the directory."
)


def export(source: Any, directory: Path, *, example: Any = None, recipe: Recipe | None = None) -> Export:
    """Return the files of a version of the user's model.

    Parameters
    ----------
    source : str, path, torch.nn.Module or estimator
        An ONNX, TorchScript or ``torch.export`` file; a SavedModel; a model's directory of a Triton repository; a
        network; a fitted estimator of scikit-learn, XGBoost or LightGBM.
    directory : pathlib.Path
        An empty one, in which files are written.
    example : object, optional
        Data as the model will be called with. A network is exported by calling it, and estimators are compared with
        their exports.
    recipe : Recipe, optional
        How the inputs are made from the example.

    Raises
    ------
    DeploymentRefused
        The model is no such kind or cannot be exported, or a library is missing.
    InvalidInput
        The example does not fit the recipe or the estimator's features.
    """
    if isinstance(source, str | os.PathLike):
        return _of_path(Path(source).expanduser(), directory, example, recipe)
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(source).__mro__}
    roots = {kind.partition(".")[0] for kind in kinds}
    if "torch.ExportedProgram" in kinds:
        return export_program(source, directory, _names(recipe, example), recipe)
    if "torch.ScriptModule" in kinds or "torch.RecursiveScriptModule" in kinds:
        if example is None:
            raise _without_example()
        return export_script(source, None, directory, example_inputs(recipe, example, forward_names(source)), recipe)
    if "torch.Module" in kinds:
        if example is None:
            raise _without_example()
        return export_network(source, directory, example_inputs(recipe, example, forward_names(source)), recipe)
    if roots & {"xgboost", "lightgbm"} or "sklearn.BaseEstimator" in kinds:
        return export_estimator(source, directory, example)
    if roots & {"keras", "tensorflow", "tf_keras"}:
        raise DeploymentRefused(_KERAS)
    hint = ""
    if isinstance(source, dict):
        hint = " A state_dict has the weights alone: pass the network that has loaded them."
    elif isinstance(source, type):
        hint = f" This is the class {source.__name__}: pass a trained object of it."
    raise DeploymentRefused(f"{kind_of(source)} is no model that can be deployed. Expected {KINDS}.{hint}")


def _of_path(path: Path, directory: Path, example: Any, recipe: Recipe | None) -> Export:
    try:
        if not path.exists():
            near = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DeploymentRefused(
                f"There is no file or directory {path}.{did_you_mean(path.name, near)} Expected {KINDS}."
            )
        if path.is_dir():
            return export_directory(path)
        if not path.is_file():
            raise DeploymentRefused(f"{path} is neither a file nor a directory. Expected {KINDS}.")
        kind = kind_of_file(path)
        if kind is FileKind.ONNX:
            return onnx_export(path)
        if kind is FileKind.PROGRAM:
            program = read_program(path, directory / "program.pt2")
            return export_program(program, directory, _names(recipe, example), recipe)
        copy = directory / "model.pt"
        script = read_script(path, copy)
    except OSError as error:
        raise DeploymentRefused(
            f"{path} cannot be read: {error.strerror or error}. Expected a file that you may read."
        ) from error
    arrays = None if example is None else example_inputs(recipe, example, forward_names(script))
    return export_script(script, copy, directory, arrays, recipe)


def _names(recipe: Recipe | None, example: Any) -> tuple[str, ...]:
    if recipe is not None:
        return tuple(recipe.inputs)
    return tuple(example) if isinstance(example, dict) and all(isinstance(name, str) for name in example) else ()


def _without_example() -> DeploymentRefused:
    return DeploymentRefused(
        "A torch network is exported by calling it on an example, and there is none. Pass a few rows as the model "
        "will be called: triton.deploy(name, net, example=jets[:1000], recipe=…)."
    )
