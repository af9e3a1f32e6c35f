"""What is uploaded beside the templates: lifecycle scripts and recipe, byte for byte; what the image is built from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

from hyperpd.deploy.console import hosted, image
from hyperpd.deploy.console.site import LIFECYCLE, RECIPE, Site
from hyperpd.deploy.target import Document


def documents(site: Site, below: str) -> Iterator[Document]:
    """Files below the folder `below`, which becomes the bucket's prefix."""
    for name, text in scripts().items():
        yield Document(f"{below}/{LIFECYCLE}/{name}", "", text)
    if image.made(site):
        yield Document(f"{below}/{image.SOURCE_FILE}", "", image.source())
    if hosted.made(site) and (made := hosted.endpoint(site)).carries_recipe:
        folder = f"{below}/{RECIPE}" if hosted.alone(site) else hosted.BESIDE
        yield Document(f"{folder}/{made.recipe_key}", "", site.file.path.read_bytes().decode())


@cache
def scripts() -> dict[str, str]:
    """The lifecycle scripts: path below their folder → text."""
    packaged = Path(str(resources.files("hyperpd"))) / "lifecycle_scripts"
    folder = packaged if packaged.is_dir() else Path(__file__).resolve().parents[4] / "lifecycle_scripts"
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix in (".sh", ".py", ".env", ".tsv")
    )
    return {str(path.relative_to(folder)): path.read_bytes().decode() for path in paths}
