from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hyperpd import recipe
from hyperpd.recipe import RecipeFile


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], RecipeFile]:
    """A recipe from its text, or a shipped one by name."""

    def of(text: str) -> RecipeFile:
        if "\n" not in text:
            return recipe.load(text)
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return recipe.load(path)

    return of
