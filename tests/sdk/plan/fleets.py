"""Small fleets, and routers for them."""

from __future__ import annotations

from hyperpd.model import Model
from hyperpd.plan.replay import Rules, router_of
from hyperpd.plan.simulate import Fleet, fleet_of, recipe_of
from hyperpd.plan.simulate.fleet import Role
from hyperpd.plan.simulate.sequence import Limits
from hyperpd.plan.steptime import StepTime
from hyperpd.routing.knowledge import SLO
from hyperpd.routing.router import Router

OBJECTIVES = SLO(ttft_s=2.0, itl_s=0.050)
SHAPE = Model(layers=80, kv_heads=8, head_size=128, dtype="bfloat16")
# 10 ms for a step, 100 us for each of its tokens, and nothing else: sums that can be done by hand.
PLAIN = StepTime(0.010, 0.0, 0.0, 0.0, 100e-6, 0.0, 0.0, 0.0)


def fleet(layout: str) -> Fleet:
    """Llama-3.3-70B on p5.48xlarge."""
    return fleet_of(recipe_of(layout)).chunked(2048, "aggregated", "decode")


def plain(*roles: str, limits: Limits = Limits(8192, 64, 100_000), step: StepTime = PLAIN, workers: int = 1) -> Fleet:
    """Workers whose steps are sums by hand, and links of 1 GB/s."""
    made = tuple(Role(role, workers, step, limits, 1e9) for role in roles)
    return Fleet("plain", made, SHAPE, 16, 100_000, handoff_s=0.005)


def router(served: Fleet, policy: str = "round_robin", decider: str = "always", seed: int = 0) -> Router:
    """As the gateway's."""
    return router_of(served, Rules(policy, decider), OBJECTIVES, seed)
