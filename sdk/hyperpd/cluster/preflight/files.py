"""Lifecycle files of this machine: there, with names and line ends that nodes take. Offline."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from hyperpd.cluster.lifecycle import Scripts, scripts
from hyperpd.cluster.preflight.finding import Finding, written
from hyperpd.cluster.spec import ClusterSpec, InstanceGroup
from hyperpd.errors import RecipeError

Found = tuple[dict[str, Scripts], list[Finding]]
_NOTHING = Scripts({}, "0" * 16)  # stands for files that cannot be read, so that all else is checked


def read(spec: ClusterSpec, groups: dict[str, InstanceGroup]) -> Found:
    """The files by source, and what is wrong with them."""
    found: dict[str, Scripts] = {}
    wrong: list[Finding] = []
    for one in [group.lifecycle or spec.lifecycle for group in groups.values()]:
        if not one.uploaded or one.source in found:
            continue
        try:
            found[one.source] = scripts(one.source)
        except RecipeError as error:
            found[one.source] = _NOTHING
            wrong += _findings(one.source, error)
    return found, wrong


def _findings(source: str, error: RecipeError) -> Iterator[Finding]:
    for problem in error.problems:
        name = problem.partition(": ")[0]
        path = Path(source, name)
        if "carriage return" in problem:
            fix = f"sed -i 's/\\r$//' {shlex.quote(str(path))}"
        elif "characters" in problem:
            fix = f"mv {shlex.quote(str(path))} {shlex.quote(str(Path(source, Path(name).name[-64:])))}"
        else:
            fix, path = "set lifecycle.source: hyperpd", Path(source)
        yield written("lifecycle-files", f"lifecycle files: {problem}", str(path), fix)
