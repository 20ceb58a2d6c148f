"""Check the conda recipe: rattler-build renders it, and it needs what the wheel needs. Run by ``make dist``."""

from __future__ import annotations

import sys
from importlib.metadata import requires
from pathlib import Path

from rattler_build import Stage0Recipe, VariantConfig

RECIPE = Path(__file__).parent / "recipe.yaml"


def _comparable(requirement: str) -> str:
    return requirement.replace(" ", "").replace("_", "-")


def main() -> int:
    """Return 1 if the recipe's requirements differ from those of the installed package."""
    (rendered,) = Stage0Recipe.from_file(RECIPE).render(VariantConfig())
    recipe = rendered.recipe.to_dict()
    conda = {_comparable(each) for each in recipe["requirements"]["run"] if not each.startswith("python ")}
    wheel = {_comparable(each) for each in requires("eaf-inference") or () if "extra ==" not in each}
    if conda != wheel:
        sys.stderr.write(f"recipe/recipe.yaml and pyproject.toml differ: {sorted(conda ^ wheel)}\n")
        return 1
    sys.stdout.write(f"recipe/recipe.yaml renders: {recipe['package']['name']} {recipe['package']['version']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
