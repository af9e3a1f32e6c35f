"""What an image must be before it may be used. Run by the Dockerfile: a broken build ends here, by name.

`pip check`, an import of everything a role imports, the versions that the labels claim, one NIXL
variant, and NIXL's LIBFABRIC plugin loaded against the image's own libfabric.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import get_args

from hyperpd import __version__, versions
from hyperpd.recipe import Recipe
from hyperpd_runtime import transport

NONE = "none"
_MODULES = ("hyperpd.cli.main", "hyperpd_runtime.node", "hyperpd_runtime.gateway.server")


def problems(image: Mapping[str, str]) -> Iterator[str]:
    """Everything wrong with the image that this runs in. `image` is its build's environment."""
    for module in _MODULES:
        importlib.import_module(module)
    yield from _differs("VERSION", image["VERSION"], __version__)
    yield from _differs("RECIPE_VERSION", image["RECIPE_VERSION"], *map(str, _recipe_versions()))
    yield from _packages(bare=image["IMAGE_VLLM"] == NONE)
    if image["IMAGE_VLLM"] != NONE:
        yield from _engine(image)


def _recipe_versions() -> tuple[int, ...]:
    return get_args(Recipe.model_fields["version"].annotation)


def _differs(name: str, claimed: str, *found: str) -> Iterator[str]:
    if claimed not in found:
        yield f"{name} is {claimed}, but here is {' '.join(found) or NONE}"


def _packages(bare: bool) -> Iterator[str]:
    """Complaints of `pip check`; on a base with an engine only ours, since that has some of its own."""
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    for line in checked.stdout.splitlines() if checked.returncode else ():
        other_variant = line.startswith("nixl ") and "requires nixl-cu" in line  # left out on purpose
        if not other_variant and (bare or line.startswith(("hyperpd ", "nixl"))):
            yield f"pip check: {line}"


def _engine(image: Mapping[str, str]) -> Iterator[str]:
    engine, efa = versions.installed(), image["IMAGE_EFA"]
    yield from _differs("VLLM", image["IMAGE_VLLM"], engine.partition(" ")[2].partition("+")[0])
    variants = {d.name: d.version for d in metadata.distributions() if d.name.startswith("nixl-cu")}
    if len(variants) != 1:
        yield f"one NIXL variant has to be installed, but here is {' '.join(variants) or NONE}"
    yield from _differs("NIXL", image["IMAGE_NIXL"], *variants.values())
    row = versions.known(engine)
    if row is None or row.nixl != image["IMAGE_NIXL"]:
        yield f"{engine} with NIXL {image['IMAGE_NIXL']} is no row of hyperpd/versions.py"
    elif efa == NONE:
        print("note: NIXL's LIBFABRIC plugin was not loaded, since EFA=none: this image cannot use EFA")
    elif _numbers(efa) < _numbers(row.efa_installer):
        yield f"EFA installer {efa} is older than {row.efa_installer}, which NIXL {row.nixl} needs"
    else:
        plugin = transport.plugin("LIBFABRIC")
        if plugin.state != "ok":
            yield f"{plugin.name}: {plugin.seen}; {plugin.fix}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    found = list(problems(os.environ))
    sys.exit("\n".join(f"error: {problem}" for problem in found) if found else 0)
