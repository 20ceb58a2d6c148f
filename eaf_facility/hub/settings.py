"""The token service's own settings, beside `Facility` (the document for users) and `TokenPolicy`."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from traitlets import Float, Int, List, Unicode
from traitlets.config import Configurable

from eaf_inference._redact import SecretText
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from eaf_inference.config import Facility

__all__ = ["ModelStore", "TokenIssuer"]


class TokenIssuer(Configurable):
    """The token service, which runs as a service of JupyterHub."""

    key_directory = Unicode(
        "/var/lib/eaf-inference/keys",
        help="Directory of the signing keys. It must be on persistent storage and private to the service's account "
        "(mode 0700).",
    ).tag(config=True)
    rotate_every = Float(7 * 86400.0, help="Seconds for which one key signs tokens.").tag(config=True)
    publish_ahead = Float(
        3600.0,
        help="Seconds for which a key is published before it signs. Must be longer than Envoy caches the keys.",
    ).tag(config=True)
    clock_skew = Float(
        60.0,
        help="Seconds by which clocks may differ: a key stays published for this long after its last token expires.",
    ).tag(config=True)
    contact = Unicode(
        "your facility's operators", help='The contact named in "not authorised for inference: ask …".'
    ).tag(config=True)
    tokens_per_minute = Float(30.0, help="Tokens per minute that each user may request on average.").tag(config=True)
    burst = Int(30, help="Tokens that an idle user may request at once.").tag(config=True)

    def checked(self) -> TokenIssuer:
        """Return these settings after checking that they are consistent.

        Raises
        ------
        ConfigurationError
            They are not.
        """
        if not 0 < self.publish_ahead < self.rotate_every:
            raise ConfigurationError(
                f"TokenIssuer.publish_ahead is {self.publish_ahead:g} s and TokenIssuer.rotate_every "
                f"{self.rotate_every:g} s. Expected 0 < publish_ahead < rotate_every."
            )
        if self.tokens_per_minute <= 0 or self.burst < 1:
            raise ConfigurationError(
                f"TokenIssuer.tokens_per_minute is {self.tokens_per_minute:g} and TokenIssuer.burst {self.burst}. "
                "Expected positive numbers: otherwise no user gets a token."
            )
        return self


class ModelStore(Configurable):
    """How the token service guards the model store, whose place and quota are in `Facility`."""

    key_file = Unicode(
        help='JSON file {"key": …, "secret": …} (mode 0600) with the S3 key of the token service; empty: the ambient '
        "AWS credentials of its account.",
    ).tag(config=True)
    role = Unicode(
        help="ARN of the role that the service assumes for its users, restricted to each one's own models by a "
        "session policy. MinIO ignores it but wants one.",
    ).tag(config=True)
    region = Unicode("us-east-1", help="Region of the S3 service and its STS.").tag(config=True)
    key_lifetime = Float(900.0, min=900.0, max=43_200.0, help="Seconds for which a user's keys are valid.").tag(
        config=True
    )
    python_groups = List(
        Unicode(),
        help="Hub groups whose members may deploy models that run their own code on the server: of the Python "
        "backend, or compiled by AOTInductor.",
    ).tag(config=True)
    backends = List(
        Unicode(),
        default_value=["ensemble", "onnxruntime"],
        help="Triton's names of the backends that everybody may use. Models of pytorch and tensorflow are programs "
        "that may read and write the server's files.",
    ).tag(config=True)

    def checked(self, facility: Facility) -> ModelStore:
        """Return these settings after checking that they are consistent.

        Raises
        ------
        ConfigurationError
            They are not.
        """
        if not facility.model_store:
            raise ConfigurationError(
                "Facility.model_store_service is true and Facility.model_store is empty. Expected the store's URL."
            )
        if "python" in self.backends:
            raise ConfigurationError(
                "ModelStore.backends contains python, whose models run any code on the server. Give it to groups in "
                "ModelStore.python_groups instead."
            )
        if facility.model_store.startswith("s3://") and not self.role:
            raise ConfigurationError(
                "ModelStore.role is empty. Expected the ARN of the role that the token service assumes for its users."
            )
        return self

    def own_key(self) -> tuple[SecretText, SecretText] | None:
        """Return the service's own key and secret; None for the ambient credentials.

        Raises
        ------
        ConfigurationError
            The file cannot be read, others may read it, or it holds no key.
        """
        if not self.key_file:
            return None
        path = Path(self.key_file).expanduser()
        expected = 'Expected JSON, {"key": …, "secret": …}, in a file with mode 0600.'
        try:
            mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"ModelStore.key_file {path} cannot be read: {reason}. {expected}") from None
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigurationError(f"ModelStore.key_file {path} can be read by others. {expected}")
        try:
            found = json.loads(text)
            return SecretText(found["key"][:]), SecretText(found["secret"][:])
        except (ValueError, LookupError, TypeError):
            raise ConfigurationError(f"ModelStore.key_file {path} holds no key. {expected}") from None
