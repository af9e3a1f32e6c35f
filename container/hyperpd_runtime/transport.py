"""The fabric of this machine's workers: decide, prove that NIXL's plugin loads, say what and why."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from hyperpd import fabric, instances
from hyperpd.environment import Environment
from hyperpd.errors import FabricError
from hyperpd.fabric import Check, Decision
from hyperpd.recipe import Recipe

_TRY = "kv_transfer.allow_tcp: true in the recipe takes TCP instead, and says so"
_LOAD_TIMEOUT_S = 60


def decide(recipe: Recipe, settings: Environment) -> Decision:
    """What the workers use. Raises FabricError when what the recipe wants cannot be used here."""
    expected = instances.find(settings.instance_type).efa if settings.instance_type else None
    try:
        decision = fabric.decide(
            recipe.fabric,
            recipe.accelerator,
            fabric.look(),
            address=settings.address,
            allow_tcp=recipe.kv_transfer.allow_tcp,
            efa_expected=expected,
            efa_given=settings.efa_devices or None,
            net_devices=settings.net_devices,
        )
    except fabric.Unusable as error:
        raise FabricError(f"{error}\n  {_TRY}") from None
    check = plugin(decision.backend)
    if check.state == "failed":
        raise FabricError(f"NIXL's {decision.backend} plugin cannot be loaded: {check.seen}; {check.fix}")
    return decision


def plugin(backend: str) -> Check:
    """Whether NIXL's plugin loads against the libraries of this machine. In a process of its own: loading may crash."""
    name = f"NIXL plugin {backend}"
    fix = "pair NIXL with its EFA installer (hyperpd/versions.py), and install hwloc and libnuma"
    spec = find_spec("nixl_cu12") or find_spec("nixl_cu13")
    if spec is None or spec.origin is None:
        return Check(name, "failed", "NIXL is not installed", "it loads", "run: make up")
    library = Path(spec.origin).parents[1] / f"{spec.name}.libs" / "nixl" / f"libplugin_{backend}.so"
    # The package's own libraries first, as the agent does.
    code = f"import {spec.name}._bindings, ctypes; ctypes.CDLL({str(library)!r})"
    try:
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_LOAD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Check(name, "failed", f"not loaded after {_LOAD_TIMEOUT_S} s", "it loads", fix)
    if loaded.returncode == 0:
        return Check(name, "ok", "it loads", "it loads", "")
    lines = loaded.stderr.strip().splitlines()
    return Check(name, "failed", lines[-1] if lines else f"exit code {loaded.returncode}", "it loads", fix)
