"""All cases for the checks of models: broken ones by name, with the expected finding, and good ones."""

from __future__ import annotations

import broken_repositories  # noqa: F401 - it adds its cases
import broken_scores  # noqa: F401
import good_models  # noqa: F401
from model_cases import BROKEN, GOOD, Case

__all__ = ["BROKEN", "GOOD", "Case"]
