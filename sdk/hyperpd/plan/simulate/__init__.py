"""simulate(fleet, requests, routers, window): a fleet as discrete events, driven by the routing code the gateway runs.

    fleet.py      what is simulated: a recipe, or a layout by its name → workers with their limits
    engine.py     one worker: chunked prefill, continuous batching, preemption
    sequence.py   a request on a worker; cache.py: a worker's KV cache
    network.py    KV transfers that share the links of their workers
    run.py        requests through router, engines and network
    outcome.py    what came out: goodput, TTFT, TPOT, ITL, E2E, hit rate, share disaggregated

A prefill worker's blocks stay pinned until decode has fetched them. Their lease does not run out: decode's scheduler
renews it from when it is asked, and that is a handoff, milliseconds, after prefill's answer.

Not in it: the gateway's own time, tokenisation, speculative decoding, prefixes that prompts share with outputs, clients
that leave, and engines that fail. Simulated goodput compares rules and layouts; it is never a product's number.
"""

from hyperpd.plan.simulate.fleet import Fleet, fleet_of, recipe_of
from hyperpd.plan.simulate.outcome import Measures, Outcome, Served, measure
from hyperpd.plan.simulate.run import Window, simulate, worker_names

__all__ = [
    "Fleet",
    "Measures",
    "Outcome",
    "Served",
    "Window",
    "fleet_of",
    "measure",
    "recipe_of",
    "simulate",
    "worker_names",
]
