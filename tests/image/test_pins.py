"""What the Dockerfile pins is what the rest of the project says. Builds nothing."""

from __future__ import annotations

import re
from typing import get_args

from hyperpd import __version__, versions
from hyperpd.recipe import Recipe
from tests.image.tools import DOCKERFILE


def test_the_dockerfile_pins_a_row_of_the_version_table() -> None:
    pins = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE.read_text(), re.M))
    row = versions.known(f"vllm {pins['VLLM']}")
    assert row is not None
    assert (pins["NIXL"], pins["EFA"]) == (row.nixl, row.efa_installer)
    assert pins["BASE"].endswith(f":v{pins['VLLM']}")
    assert pins["VERSION"] == __version__
    assert int(pins["RECIPE_VERSION"]) in get_args(Recipe.model_fields["version"].annotation)
