"""What an operator sets of the token service, beside `Facility` (what users are told) and `TokenPolicy`."""

from __future__ import annotations

from traitlets import Float, Int, Unicode
from traitlets.config import Configurable

from eaf_inference.errors import ConfigurationError

__all__ = ["TokenIssuer"]


class TokenIssuer(Configurable):
    """The token service under the Hub."""

    key_directory = Unicode(
        "/var/lib/eaf-inference/keys",
        help="Where the signing keys are kept, 0700, for this service's account alone, on storage that lasts.",
    ).tag(config=True)
    rotate_every = Float(7 * 86400.0, help="Seconds for which one key signs.").tag(config=True)
    publish_ahead = Float(
        3600.0,
        help="Seconds for which a key is published before it signs: longer than the door keeps what it fetched.",
    ).tag(config=True)
    clock_skew = Float(
        60.0, help="Seconds by which clocks may differ: a key stays published so long after its last token's end."
    ).tag(config=True)
    contact = Unicode("your facility's operators", help='Whom to ask, in "not authorised for inference: ask …".').tag(
        config=True
    )
    tokens_per_minute = Float(30.0, help="Tokens that one user gets in the long run.").tag(config=True)
    burst = Int(30, help="Tokens that one user gets at once.").tag(config=True)

    def checked(self) -> TokenIssuer:
        """These settings, if they go together.

        Raises
        ------
        ConfigurationError
            They do not.
        """
        if not 0 < self.publish_ahead < self.rotate_every:
            raise ConfigurationError(
                f"TokenIssuer.publish_ahead is {self.publish_ahead:g} s and TokenIssuer.rotate_every "
                f"{self.rotate_every:g} s. Expected a key to be published ahead, and for less time than it signs."
            )
        if self.tokens_per_minute <= 0 or self.burst < 1:
            raise ConfigurationError(
                "TokenIssuer.tokens_per_minute and TokenIssuer.burst must be positive: else nobody gets a token."
            )
        return self
