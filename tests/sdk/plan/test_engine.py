"""A simulated engine: many steps at once are the same as one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hyperpd.plan.simulate.engine import Engine
from hyperpd.plan.simulate.sequence import Limits, Sequence
from hyperpd.plan.trace import BLOCK_TOKENS
from tests.sdk.plan.clock import Clock
from tests.sdk.plan.fleets import PLAIN

# 1 us to read a token of the cache: runs grow slower step by step.
GROWING = replace(PLAIN, kv_s=1e-6)


class Story:
    """Hears what an engine tells; prompts of others arrive a second later."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.engine: Engine | None = None
        self.first: dict[object, float] = {}
        self.last: dict[object, float] = {}

    def load(self, now_s: float, sequence: Sequence, tokens: int) -> None:
        """They arrive."""
        engine = self.engine
        assert engine
        self.clock.at(now_s + 1.0, lambda then_s: engine.loaded(then_s, sequence))

    def first_token(self, now_s: float, sequence: Sequence) -> None:
        """Once."""
        assert sequence.owner not in self.first
        self.first[sequence.owner] = now_s

    def ended(self, now_s: float, sequence: Sequence) -> None:
        """Once, after its first token."""
        assert sequence.owner in self.first
        assert sequence.owner not in self.last
        self.last[sequence.owner] = now_s


def served(arrivals: list[tuple[float, str, int, int]], limits: Limits, wakes: list[float]) -> tuple[Story, Engine]:
    """Serve (arrival in s, leg, input, output); at `wakes` the engine is asked to look up from its run."""
    clock = Clock()
    story = Story(clock)
    engine = story.engine = Engine(GROWING, limits, clock.at, story, (0.0, 1e9))
    for number, (arrival_s, leg, inputs, outputs) in enumerate(arrivals):
        blocks = tuple(range(1000 * (number % 3), 1000 * (number % 3) + inputs // BLOCK_TOKENS))
        sequence = Sequence(number, leg, inputs, outputs, blocks)
        clock.at(arrival_s, lambda now_s, sequence=sequence: engine.add(now_s, sequence))  # type: ignore[misc]
    for wake_s in wakes:
        clock.at(wake_s, engine._wake)
    clock.run()
    return story, engine


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 5), st.sampled_from(["both", "decode"]), st.integers(1, 3000), st.integers(1, 300)),
    min_size=1,
    max_size=12,
)


# One that gave its memory up joins again, to end with the step with which it would have ended before.
@example(
    [
        *((1.0, "decode", 2155, 1), (2.0, "decode", 2, 2), (1.0, "both", 1, 46), (5.0, "decode", 6, 3)),
        *((1.0, "decode", 69, 53), (5.0, "decode", 6, 1), (0.0, "both", 1, 1), (0.0, "both", 1984, 69)),
        *((1.0, "decode", 428, 2), (0.0, "both", 49, 253), (1.0, "decode", 597, 1)),
    ],
    [],
    3400,
)
# One that gave its memory up would have room at once, or one step later, to give it up again.
@example(
    [(0.0, "both", 1, 2), (0.0, "decode", 914, 1), (0.0, "decode", 1224, 1), (0.0, "decode", 1261, 1)],
    [1.0],
    3400,
)
@example(
    [(3.0, "both", 2855, 30), (3.0, "both", 333, 28), (2.25, "both", 2643, 117), (1.25, "decode", 428, 94)],
    [4.53125],
    6000,
)
@given(ARRIVALS, st.lists(st.floats(0, 10), max_size=10), st.sampled_from([3400, 6000, 50_000]))
def test_looking_up_from_a_run_changes_nothing(
    arrivals: list[tuple[float, str, int, int]], wakes: list[float], cache_tokens: int
) -> None:
    limits = Limits(512, 8, cache_tokens)
    quiet, engine = served(arrivals, limits, [])
    woken, other = served(arrivals, limits, wakes)
    assert set(quiet.last) == set(range(len(arrivals)))
    assert woken.first == pytest.approx(quiet.first)
    assert woken.last == pytest.approx(quiet.last)
    assert other.preemptions == engine.preemptions
    assert engine.cache.room_tokens == cache_tokens  # nothing is held any more
    assert (engine.waiting, engine.running) == (0, 0)


def test_who_comes_within_a_run_begins_with_the_next_step() -> None:
    """Steps of 10.1 ms from 20 ms on; whoever comes at 100 ms waits for 100.8, and 20.1 ms for its own."""
    clock = Clock()
    story = Story(clock)
    engine = story.engine = Engine(PLAIN, Limits(512, 8, 10_000), clock.at, story, (0.0, 1e9))
    clock.at(0.0, lambda now_s: engine.add(now_s, Sequence("first", "both", 100, 200, ())))
    clock.at(0.1, lambda now_s: engine.add(now_s, Sequence("second", "both", 100, 1, ())))
    clock.run()
    assert story.first == pytest.approx({"first": 0.020, "second": 0.1008 + 0.0201})
    assert story.last["first"] == pytest.approx(0.020 + 198 * 0.0101 + 0.0201)


def test_a_prompt_waits_for_its_turn_and_its_memory() -> None:
    """Chunks of 512: two prompts of 512 are two steps; a third has no room until the first has ended."""
    story, engine = served(
        [(0.0, "both", 512, 1), (0.0, "both", 512, 100), (0.0, "both", 600, 1)], Limits(512, 8, 1200), []
    )
    step_s = 0.010 + 512 * 100e-6
    assert story.first[0] == pytest.approx(step_s)
    assert story.first[1] == pytest.approx(2 * step_s)
    assert story.first[2] > story.first[1] + step_s
    assert engine.preemptions == 0


def test_no_more_sequences_than_allowed() -> None:
    story, _ = served([(0.0, "both", 1, 100)] * 3, Limits(512, 2, 10_000), [])
    assert story.first[2] > story.last[0]
