"""The token service's own settings, beside `Facility` (the document for users) and `TokenPolicy`."""

from __future__ import annotations

from traitlets import Float, Int, Unicode
from traitlets.config import Configurable

from eaf_inference.errors import ConfigurationError

__all__ = ["TokenIssuer"]


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
