"""How long pods may start and end.

Some numbers are the runtime's own, which may not be imported here; the tests hold them equal.
"""

from __future__ import annotations

from hyperpd.deploy.kubernetes.fleet import Component
from hyperpd.recipe import Recipe

PERIOD_S = 10  # between two looks at a worker
NOTICE_S = 2  # a draining worker waits until every gateway has asked it
KILL_S = 5  # after drain_s, before an engine is killed
WARM_UP_S = 120  # the first handoff of a pod with its own gateway
GATEWAY_NOTICE_S = 5  # until a cluster sends no new connection to a gateway that ends
_MARGIN_S = 15
_BEFORE_ENGINE_S = 120  # a generated model, NIXL's plugin
_IMAGE_PULL_S = 1800  # of some 10 GB, on a machine that is new


def startup_tries(recipe: Recipe, component: Component) -> int:
    """How often a worker may be found not ready while it starts, every PERIOD_S seconds."""
    seconds = recipe.start_timeout_s + _BEFORE_ENGINE_S + (WARM_UP_S if component == "node" else 0)
    return -(-seconds // PERIOD_S)


def progress_s(recipe: Recipe, component: Component) -> int:
    """Seconds within which a Deployment has to get a pod ready: an old one ends, the image comes, it starts."""
    if component == "gateway":  # ready once workers are
        return max(progress_s(recipe, role) for role in recipe.roles()) + WARM_UP_S
    return _IMAGE_PULL_S + startup_tries(recipe, component) * PERIOD_S + ending_s(recipe, component)


def progress_note(component: Component) -> str:
    """What the seconds of `progress_s` are for."""
    if component == "gateway":
        return "A gateway is ready only when workers are: as long as they may take, and a first handoff."
    return "Pulling the image, an orderly end, and start_timeout_s."


def ending_s(recipe: Recipe, component: Component, *, leads: bool = True) -> int:
    """Seconds from SIGTERM (or preStop) to SIGKILL: all that an orderly end may take, and a margin.

    Another machine of a worker waits for the first one to end, a lease included, and ends its own engine then.
    """
    parts = _parts(recipe, component) if leads else [*_parts(recipe, "prefill"), recipe.drain_s + KILL_S]
    return sum(parts) + _MARGIN_S


def _parts(recipe: Recipe, component: Component) -> list[int]:
    engine, gateway = recipe.drain_s + KILL_S, 2 * recipe.drain_s
    match component:
        case "prefill":
            return [NOTICE_S, recipe.kv_transfer.lease_s, engine]
        case "decode":
            return [NOTICE_S, engine]
        case "aggregated":
            return [gateway, NOTICE_S, engine]
        case "node":
            return [gateway, engine, engine]
        case "gateway":
            return [GATEWAY_NOTICE_S, gateway]


def ending_note(component: Component) -> str:
    """What the seconds of `ending_s` are for."""
    parts = {
        "prefill": f"{NOTICE_S} s until gateways know, kv_transfer.lease_s until decode has read what is finished,"
        f" drain_s and {KILL_S} s for the engine",
        "decode": f"{NOTICE_S} s until gateways know, drain_s and {KILL_S} s for the engine",
        "aggregated": f"drain_s twice for the worker's own front, {NOTICE_S} s until gateways know, drain_s and"
        f" {KILL_S} s for the engine",
        "node": f"drain_s twice for the gateway, then drain_s and {KILL_S} s for decode, and again for prefill",
        "gateway": f"{GATEWAY_NOTICE_S} s of preStop, drain_s for running requests and again for open connections",
    }
    hook = {
        "gateway": "",
        "node": " No preStop: no other gateway could take over.",
    }.get(component, " No preStop: at SIGTERM the pod tells gateways itself, and drains.")
    return f"At most, with {_MARGIN_S} s to spare: {parts[component]}.{hook}"
