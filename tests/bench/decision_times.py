"""How long one decision takes, and what the view of the prefix caches weighs. Not run by CI.

    PYTHONPATH=sdk python tests/bench/decision_times.py

Whole decisions: match, decode's worker, decider, prefill's worker, booking and noting what they will hold. Prompts of
32,768 tokens in blocks of 16: half of them go on a conversation, all begin with one of eight system prompts. Hashing
is apart, since it is done once for each prompt, wherever it is done.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import time
import tracemalloc
import zlib
from array import array
from collections.abc import Callable, Sequence

from hyperpd.routing.blocks import chain
from hyperpd.routing.calibration import Calibration
from hyperpd.routing.deciders import DECIDERS
from hyperpd.routing.flight import Flight
from hyperpd.routing.knowledge import SLO, Knowledge
from hyperpd.routing.policies import POLICIES
from hyperpd.routing.prefix import PrefixView
from hyperpd.routing.request import Request
from hyperpd.routing.router import Router

TOKENS, BLOCK = 32_768, 16
BLOCKS = TOKENS // BLOCK
DECISIONS = 2_000
CACHE_BLOCKS = 26_000  # 426k tokens: Llama-3.3-70B at TP 4 on H100


def prompts(count: int, seed: int = 0) -> list[array[int]]:
    """Chains of blocks: a system prompt of 64 blocks, then a conversation's, new or gone on with."""
    draw = random.Random(seed)
    fresh = iter(range(1, 1 << 62))
    systems = [array("q", (next(fresh) for _ in range(64))) for _ in range(8)]
    talks: list[array[int]] = []
    made = []
    for _ in range(count):
        old = draw.choice(talks) if talks and draw.random() < 0.5 else draw.choice(systems)
        kept = old[: BLOCKS - 128] if len(old) == BLOCKS else old
        talk = kept + array("q", (next(fresh) for _ in range(BLOCKS - len(kept))))
        talks.append(talk)
        made.append(talk)
    return made


def router_of(workers: int, policy: str, decider: str) -> Router:
    """Half prefill, half decode, all pairs proven."""
    knowledge = Knowledge(SLO(2.0, 0.05), Calibration(14_000, 0.02, 327_680, 200e9), BLOCK)
    router = Router(knowledge, POLICIES[policy], DECIDERS[decider])
    names = {role: [f"{role}-{n}" for n in range(workers // 2)] for role in ("prefill", "decode")}
    for role in ("prefill", "decode"):
        for name in names[role]:
            router.join(role, name, CACHE_BLOCKS)
    for prefill in names["prefill"]:
        for decode in names["decode"]:
            router.prove(prefill, decode)
    return router


def decisions(workers: int, chains: Sequence[array[int]], policy: str, decider: str) -> list[float]:
    """Microseconds of each decision where about every worker prefills and 8 decode on each, once that is so."""
    router = router_of(workers, policy, decider)
    draw = random.Random(1)
    flights: list[Flight] = []
    generating: list[Flight] = []
    now_s, took = 0.0, []
    for turn, blocks in enumerate(chains):
        now_s += 2.3 / workers
        request = Request(TOKENS, blocks)
        began = time.perf_counter_ns()
        flight = router.choose(request, now_s)
        took.append((time.perf_counter_ns() - began) / 1000)
        flights.append(flight)
        if turn % 2 and len(flights) > workers // 2:
            for _ in range(2):
                one = flights.pop(draw.randrange(len(flights)))
                one.first_token(now_s)
                generating.append(one)
        while len(generating) > workers * 8:
            generating.pop(draw.randrange(len(generating))).end(now_s, 300)
    return took[len(took) // 2 :]


def hashing() -> dict[str, float]:
    """Microseconds for a prompt's chain, by the hash."""
    tokens = [random.Random(2).randrange(128_000) for _ in range(TOKENS)]
    packed = array("I", tokens).tobytes()
    step = BLOCK * 4

    def linked(link: Callable[[bytes], bytes]) -> None:
        parent = b""
        for start in range(0, len(packed), step):
            parent = link(parent + packed[start : start + step])

    def crc() -> None:
        parent = 0
        for start in range(0, len(packed), step):
            parent = zlib.crc32(packed[start : start + step], parent)

    ways: dict[str, Callable[[], object]] = {
        "ours: hash() of ints, from token ids": lambda: chain(tokens, BLOCK),
        "packing ids as 32-bit bytes, which the ones below need": lambda: array("I", tokens).tobytes(),
        "BLAKE2b, 8 bytes": lambda: linked(lambda data: hashlib.blake2b(data, digest_size=8).digest()),
        "SHA-256, as the engine's but for the encoding": lambda: linked(lambda data: hashlib.sha256(data).digest()),
        "CRC-32, 32 bits: two blocks in 10,000 prompts would be mistaken": crc,
    }
    return {name: min(_took_us(way) for _ in range(15)) for name, way in ways.items()}


def _took_us(what: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    what()
    return (time.perf_counter_ns() - began) / 1000


def memory(blocks_each: int, workers: int = 64) -> float:
    """MB for a million blocks held, in prompts of so many new blocks; the chains themselves are not counted."""
    each = 1_000_000 // workers
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    view = PrefixView(ttl_s=1e9)
    fresh = iter(range(1 << 40, 1 << 62))
    for index in range(workers):
        view.join(index, each)
        while view.blocks_held(index) + blocks_each <= each:
            view.sent(index, array("q", (next(fresh) for _ in range(blocks_each))), 1.0)
    held = sum(view.blocks_held(index) for index in range(workers))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / held


def main() -> None:
    """Print it all."""
    chains = prompts(DECISIONS)
    for policy, decider in (("marginal_slo_cost", "predicted_cost"), ("least_tokens", "uncached_tokens")):
        for workers in (10, 64, 256, 1000):
            took = sorted(decisions(workers, chains, policy, decider))
            p50, p99 = statistics.median(took), took[len(took) * 99 // 100]
            print(f"{policy}, {decider}, {workers:5} workers: p50 {p50:6.0f} us, p99 {p99:6.0f} us", flush=True)
    for name, took_us in hashing().items():
        print(f"hashing {TOKENS} tokens in blocks of {BLOCK}: {took_us:6.0f} us, {name}")
    for blocks_each in (8, 64, 2048):
        print(f"view: {memory(blocks_each):6.1f} MB per million blocks held, {blocks_each} new blocks a prompt")


if __name__ == "__main__":
    main()
