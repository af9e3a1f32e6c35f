"""What a request costs by each path, in units of the objectives: its own first token, and what it takes from others."""

from __future__ import annotations

from math import inf, log, pow

from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.worker import Worker

SAFE = 0.7  # of an objective: predicted to take no longer, a first token will be in time
MISSED = 2.0  # what a first token costs that is predicted just at the objective
LATE = 0.1  # what each further factor of e costs
PREFILLS = 1.5  # what a usual prefill costs who comes after it, where prefills are scarce
SCARCE = 0.1  # of an objective: where requests wait so long for prefills, they are half as scarce as they can be
BUSY = 0.25  # of an objective: who has less to prefill than this is soon idle again
MEMORY = 2.0  # what a usual request's memory costs them, where all wait so for memory
GIVEN_UP = 10.0  # objectives of waiting beyond which who comes next is late in any case
FULL = 0.9  # of a KV cache: beyond it sequences wait, or are preempted
_SHORTEST_S = 1e-4  # step, where answers come all at once
_TURNS = 2.0  # stays that a whole cache of waiting requests takes
SPREAD = 64  # requests on a worker that weigh half an objective; any number weighs less than a whole one
QUEUE = 32  # of those that wait, how many weigh so


def ttft(known: Knowledge, seconds: float) -> float:
    """A first token after `seconds`; 1 is an objective.

    Near the objective it grows steeply, since predictions are not exact and to miss costs as much again: a worker that
    is safely in time may take more from others for it. Beyond it, how late matters little, and ever less: who cannot
    be in time joins others who are not, where fewest lose by it. Spread evenly, an overload makes everybody late.
    """
    late = seconds / known.slo.ttft_s
    if late <= SAFE:
        return late
    if late <= 1:
        return SAFE + (MISSED - SAFE) * (late - SAFE) / (1 - SAFE)
    return MISSED + LATE * log(late)


def memory_s(known: Knowledge, worker: Worker, tokens: int) -> float:
    """How long a prompt waits for KV memory: by how much the cache is too small, times how long a request stays.

    Not where it only prefills: it stays there no longer than decode is short.
    """
    if not worker.generates:
        return 0.0
    output = known.output_tokens.value
    over = (worker.held_tokens + tokens + output) / worker.cache_tokens - FULL
    return _TURNS * over * output * worker.step.value if over > 0 else 0.0


def fullness(worker: Worker) -> float:
    """How near its cache is to being short, 0 to 1: (held / FULL)^4, since what is half full is far from it."""
    return min(1.0, worker.held_tokens / (FULL * worker.cache_tokens)) ** 4


def after(known: Knowledge, worker: Worker, backlog_s: float, prefill_s: float) -> float:
    """What a prefill takes from those who come after it, by how many usual ones its seconds would have been enough for.

    As dear as prefills are scarce: waited^1.5 / (waited^1.5 + SCARCE^1.5), where waited is what requests waited for
    them of late, in objectives, on workers that are not given up; where they wait for memory, prefills are not what is
    scarce.
    Little on a worker that is soon idle again; nothing on one whose backlog is GIVEN_UP: there they are late in any
    case. On a worker that only prefills it declines by ((late - 1) / (GIVEN_UP - 1))^2 beyond the objective, so that
    late prompts gather on one and the others come to be in time again; where it decodes as well, its decode is lost
    with it.
    """
    late = backlog_s / known.slo.ttft_s
    if late >= GIVEN_UP:
        return 0.0
    waited = pow(known.prefill_pressure.value, 1.5)
    scarce = waited / (waited + pow(SCARCE, 1.5)) * (1 - known.memory_pressure.value)
    busy = min(1.0, (late + prefill_s / known.slo.ttft_s) / BUSY)
    share = 1.0 if worker.generates else 1 - (max(0.0, late - 1) / (GIVEN_UP - 1)) ** 2
    return PREFILLS * scarce * busy * share * prefill_s / known.prefill_s.value


def pinned(known: Knowledge, prefill: Worker, tokens: int, prefilled_s: float, short_s: float) -> float:
    """What a prompt takes from others on its prefill worker while it waits there for decode's memory.

    Its KV stays from when it is prefilled until decode takes it, in `prefilled_s` and `short_s` seconds: so many
    seconds of tokens / cache of the worker, by usual prefills. Only what is beyond GIVEN_UP: until then its cache is
    large enough. The less, the more of the requests wait for memory: where all do, there is nobody to make way for.
    """
    pinned_s = short_s - max(prefilled_s, GIVEN_UP * known.slo.ttft_s)
    if pinned_s <= 0:
        return 0.0
    share = min(1.0, tokens / max(1, prefill.cache_tokens))
    return (1 - known.memory_pressure.value) * pinned_s * share / known.prefill_s.value


def crowds(known: Knowledge, worker: Worker, tokens: int) -> float:
    """What a request takes from those who come after it by the memory it holds; as `after`, by usual ones' memory."""
    if not worker.generates or memory_s(known, worker, tokens) > GIVEN_UP * known.slo.ttft_s:
        return 0.0
    held = tokens + known.output_tokens.value
    return MEMORY * known.memory_pressure.value * held / known.held_tokens.value


def spread(worker: Worker) -> float:
    """A weak term that spreads requests; where there are many, or many wait, it counts little how many more."""
    requests = worker.decodes + min(worker.queued, QUEUE)
    return requests / (requests + SPREAD)


def local(known: Knowledge, worker: Worker, tokens: int, prefill_s: float, now_s: float) -> float:
    """Prefill where it decodes. tokens: of the prompt; prefill_s: of what is not cached, by the calibration.

    TTFT = max(backlog, memory) + prefill + step; the prefill stands in the way of the decodes that run there, `taken`,
    and of those who come after.
    """
    step_s = worker.step.value
    own_s = prefill_s / worker.pace.value
    backlog_s = worker.backlog_s(now_s)
    short_s = memory_s(known, worker, tokens)
    first_s = max(backlog_s, short_s) + own_s + step_s
    lost = taken(known, worker, own_s, short_s) + after(known, worker, backlog_s, prefill_s)
    return ttft(known, first_s) + lost


def taken(known: Knowledge, worker: Worker, prefill_s: float, short_s: float) -> float:
    """What a prefill of so many seconds takes from the decodes, spread over what they generate on average.

    prefill * decodes / mean_output * (near^3 / SLO_itl + fullness / step), where near is step / SLO_itl, at most 1:
    decodes far from their objective do not miss it, but hold their memory for as much longer. By a step each, so many
    requests fewer fit in, where the cache is full. That is nothing to those who wait `short_s` for it, where that is
    GIVEN_UP.
    """
    if not worker.generates:
        return 0.0
    itl_s, step_s = known.slo.itl_s, max(worker.step.value, _SHORTEST_S)
    each = min(1.0, step_s / itl_s) ** 3 / itl_s
    if short_s <= GIVEN_UP * known.slo.ttft_s:
        each += known.fullness.value / step_s
    return prefill_s * worker.decodes / known.output_tokens.value * each


def remote(
    known: Knowledge,
    worker: Worker,
    prefill: Worker,
    tokens: int,
    prefill_s: float,
    moved_tokens: int,
    bytes_per_s: float,
    now_s: float,
) -> float:
    """Prefill on `prefill`, and move `moved_tokens` of KV to `worker`, which decodes. tokens, prefill_s: as of `local`.

    TTFT = max(backlog + prefill, memory) + moved * kv_bytes / bandwidth + handoff + step; and what it takes from those
    who come after on the prefill worker, by `after` and `pinned`. A pair that is not proven has no bandwidth.
    """
    if not bytes_per_s:
        return inf
    start = known.calibration
    moved_s = moved_tokens * start.kv_bytes_per_token / bytes_per_s
    backlog_s = prefill.backlog_s(now_s)
    short_s = memory_s(known, worker, tokens)
    prefilled_s = backlog_s + prefill_s / prefill.pace.value
    first_s = max(prefilled_s, short_s) + moved_s + start.handoff_s + worker.step.value
    lost = after(known, prefill, backlog_s, prefill_s) + pinned(known, prefill, tokens, prefilled_s, short_s)
    return ttft(known, first_s) + lost
