"""What a connection can do with a user's own models: deploy, roll back and remove them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eaf_inference.inference.interrupts import stopping
from eaf_inference.inference.parameters import Chosen

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from eaf_inference.deploy.deployment import Target
    from eaf_inference.inference.model import Model

__all__ = ["OwnModels"]


class OwnModels:
    """The methods of a connection that change which models the server has."""

    def deploy(
        self: Target,
        name: str,
        source: Any,
        *,
        example: Any,
        recipe: str | os.PathLike[str] | None = None,
        labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        features: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        collections: Mapping[str, Sequence[str]] | None = None,
        graph: Mapping[str, Any] | None = None,
        lengths: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        pad_batches_to: int | Sequence[int] | None = None,
        max_batch_size: int | None = None,
        config: str | os.PathLike[str] | None = None,
        tolerance: float = 1e-5,
        timeout: float = 120.0,
        progress: Callable[[str], object] = print,
    ) -> Model:
        """Put a model on the server as its next version, once its scores there equal those computed here.

        It is exported, checked with ONNX Runtime on the example, uploaded to the facility's model store, loaded by
        Triton, and scores the example. If anything fails, what was served before still is.

        Parameters
        ----------
        name : str
            Letters, digits, ``_``, ``-`` and ``.``. Users of a facility with tokens get a prefix: ``alice.NAME``.
        source : object or path
            A torch module, a scikit-learn, XGBoost or LightGBM estimator; or the path of an ONNX, TorchScript or
            torch.export file, a TensorFlow SavedModel, or a Triton model's directory.
        example : awkward.Array, numpy.ndarray, table or mapping
            Typical rows, as the model will be called with: a few hundred, with short and long ones.
        recipe : path, optional
            A ``preprocess.json``.
        labels : sequence of str, or mapping of str to sequence of str, optional
            Class names of the output, or of each.
        features : sequence of str, or mapping of str to sequence of str, optional
            Names of the columns of the input, or of each. Estimators and some ONNX files have them.
        collections : mapping of str to sequence of str, optional
            Inputs that have the same constituents, by a name for them.
        graph : mapping, optional
            Which inputs and outputs are nodes and edges; see the parameter ``graph`` in the reference.
        lengths : sequence of int, or mapping of str to sequence of int, optional
            The only lengths to which jagged inputs may be padded, for a model that takes no others.
        pad_batches_to : int or sequence of int, optional
            The only numbers of rows that a request may have, for a model with a fixed batch axis.
        max_batch_size : int, optional
            The most rows of one request; 0 if the model has no batch axis.
        config : str or path, optional
            The text or file of a ``config.pbtxt`` to use, such as an edited one of `draft_config`.
        tolerance : float, optional
            The largest difference that served scores may have; relative above 1.
        timeout : float, optional
            Seconds for Triton to load it.
        progress : callable, optional
            Called with a line of text after each step.

        Returns
        -------
        Model
            The version that was deployed.

        Raises
        ------
        DeploymentRefused
            A check failed, or the facility does not allow it; nothing was uploaded.
        DeploymentFailed
            Triton cannot load it, or gives other scores; the version is withdrawn.
        ConfigurationError
            The facility has no model store, or an argument cannot be used.
        """
        from eaf_inference.deploy.deployment import Choices, deploy

        choices = Choices(
            recipe=Chosen.of(preprocess=recipe).preprocess,
            labels=labels,
            features=features,
            collections=collections,
            graph=graph,
            max_batch_size=max_batch_size,
            lengths=lengths,
            pad_batches_to=pad_batches_to,
        )
        with stopping("Stopped; the model is not deployed."):
            return deploy(
                self,
                name,
                source,
                example,
                choices,
                config=config,
                tolerance=tolerance,
                timeout=timeout,
                progress=progress,
            )

    def draft_config(
        self: Target,
        name: str,
        source: Any,
        *,
        example: Any,
        recipe: str | os.PathLike[str] | None = None,
        labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        features: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        collections: Mapping[str, Sequence[str]] | None = None,
        graph: Mapping[str, Any] | None = None,
        lengths: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        pad_batches_to: int | Sequence[int] | None = None,
        max_batch_size: int | None = None,
    ) -> str:
        """Return the ``config.pbtxt`` that `deploy` would write, to edit and pass to it as `config`.

        Parameters and errors are those of `deploy`. Nothing is uploaded.
        """
        from eaf_inference.deploy.deployment import Choices, draft_config

        choices = Choices(
            recipe=Chosen.of(preprocess=recipe).preprocess,
            labels=labels,
            features=features,
            collections=collections,
            graph=graph,
            max_batch_size=max_batch_size,
            lengths=lengths,
            pad_batches_to=pad_batches_to,
        )
        return draft_config(self, name, source, example, choices)

    def rollback(self: Target, name: str, version: int | str | None = None, *, timeout: float = 120.0) -> Model:
        """Serve an earlier version of an own model again.

        Parameters
        ----------
        name : str
        version : int or str, optional
            By default the one that was served before the present one.
        timeout : float, optional
            Seconds for Triton to load it.

        Returns
        -------
        Model

        Raises
        ------
        ModelNotFound
            The store has no such model or version.
        DeploymentFailed
            Triton does not load it; the present version stays.
        """
        from eaf_inference.deploy.deployment import rollback

        with stopping("Stopped while Triton was loading the earlier version."):
            return rollback(self, name, version, timeout=timeout)

    def undeploy(self: Target, name: str, *, timeout: float = 120.0) -> None:
        """Remove an own model with all its versions from the server and the store.

        Parameters
        ----------
        name : str
        timeout : float, optional
            Seconds for Triton to unload it.

        Raises
        ------
        ModelNotFound
            The store has no such model.
        """
        from eaf_inference.deploy.deployment import undeploy

        with stopping("Stopped while the model was removed; call it again."):
            undeploy(self, name, timeout=timeout)
