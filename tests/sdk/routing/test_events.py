"""EventView held to an engine's prefix cache that tells its events, and to a stream with gaps and restarts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpd.routing.blocks import chain
from hyperpd.routing.events import AllBlocksCleared, BlockRemoved, BlockStored, Event, EventView


class Engine:
    """A prefix cache with vLLM's order of eviction: least recently used, a prompt's last blocks first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: list[tuple[int, ...]] = []  # prefixes, whose last block is meant; the oldest first

    def serve(self, prompt: Sequence[int]) -> list[Event]:
        """What its cache tells of a prompt of blocks of one token."""
        prefixes = [tuple(prompt[: n + 1]) for n in range(min(len(prompt), self.capacity))]
        new = [prefix for prefix in prefixes if prefix not in self.held]
        self.held = [prefix for prefix in self.held if prefix not in prefixes] + prefixes[::-1]
        gone, self.held = self.held[: -self.capacity], self.held[-self.capacity :]
        told: list[Event] = []
        if gone:
            told.append(BlockRemoved([theirs(prefix) for prefix in gone]))
        if new:
            parent = theirs(new[0][:-1]) if len(new[0]) > 1 else None
            told.append(BlockStored([theirs(prefix) for prefix in new], parent, [prefix[-1] for prefix in new], 1))
        return told

    def depth(self, prompt: Sequence[int]) -> int:
        """Blocks of a prompt that are there."""
        return next((n for n in range(len(prompt)) if tuple(prompt[: n + 1]) not in self.held), len(prompt))


def theirs(prefix: tuple[int, ...]) -> bytes:
    """A hash of the engine's own kind."""
    return bytes(prefix)


PROMPTS = st.lists(st.sampled_from([1, 2]), max_size=8)


def depths(view: EventView, prompt: Sequence[int], workers: int) -> list[int]:
    """Blocks of a prompt by worker."""
    found = view.match(chain(prompt, 1), 0.0)
    assert sum(mask.bit_count() for _, mask in found) == sum(mask for _, mask in found).bit_count()  # disjoint
    return [next((depth for depth, mask in found if mask >> worker & 1), 0) for worker in range(workers)]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 2), PROMPTS), max_size=30), PROMPTS)
def test_it_knows_what_the_engines_hold(served: list[tuple[int, list[int]]], asked: list[int]) -> None:
    view, engines, numbers = EventView(), [Engine(4), Engine(7), Engine(20)], [0, 0, 0]
    for worker in range(3):
        view.join(worker, 0)
    for worker, prompt in served:
        assert view.apply(worker, numbers[worker], 1.0, engines[worker].serve(prompt)) == "applied"
        numbers[worker] += 1
        assert depths(view, asked, 3) == [engine.depth(asked) for engine in engines]
        assert [view.blocks_held(n) for n in range(3)] == [len(engine.held) for engine in engines]


@pytest.fixture
def view() -> EventView:
    """Worker 0 holds [1, 2], by batch 0 at 10 s."""
    view = EventView()
    view.join(0, 0)
    assert view.apply(0, 0, 10.0, [stored([1, 2])]) == "applied"
    return view


def stored(prompt: Sequence[int], parent: bytes | None = None) -> BlockStored:
    """One block for each token."""
    start = tuple(parent or ())
    return BlockStored([theirs((*start, *prompt[: n + 1])) for n in range(len(prompt))], parent, prompt, 1)


def test_a_gap_is_stale_until_it_has_been_replayed(view: EventView) -> None:
    assert view.apply(0, 2, 12.0, [BlockRemoved([theirs((1, 2))])]) == "stale"
    assert view.wanted(0) == 1
    assert depths(view, [1, 2, 3], 1) == [2]
    assert view.apply(0, 1, 11.0, [stored([3], theirs((1, 2)))]) == "applied"
    assert view.wanted(0) == 2
    assert view.apply(0, 1, 11.0, [stored([3], theirs((1, 2)))]) == "known"
    assert view.apply(0, 2, 12.0, [BlockRemoved([theirs((1, 2, 3))])]) == "applied"
    assert view.wanted(0) is None
    assert depths(view, [1, 2, 3], 1) == [2]


def test_what_can_no_longer_be_replayed_is_forgotten(view: EventView) -> None:
    assert view.apply(0, 9, 12.0, []) == "stale"
    view.lost(0, 8)
    assert depths(view, [1, 2], 1) == [0]
    assert view.apply(0, 8, 12.0, [stored([3], theirs((1, 2)))]) == "applied"  # of no use without its beginning
    assert view.blocks_held(0) == 0
    assert view.apply(0, 9, 12.0, [BlockRemoved([theirs((1, 2))])]) == "applied"
    assert view.wanted(0) is None


@pytest.mark.parametrize("number", [0, 3])
def test_an_engine_that_began_anew_holds_nothing_of_before(view: EventView, number: int) -> None:
    for n in range(1, 5):
        view.apply(0, n, 10.0 + n, [])
    assert view.apply(0, number, 99.0, [stored([5])]) == ("stale" if number else "applied")
    assert depths(view, [1, 2], 1) == [0]
    assert depths(view, [5], 1) == [0 if number else 1]
    assert view.wanted(0) == (0 if number else None)


def test_cleared(view: EventView) -> None:
    view.apply(0, 1, 11.0, [AllBlocksCleared()])
    assert depths(view, [1, 2], 1) == [0]


def test_a_block_that_is_told_again_when_it_is_reused_is_still_one(view: EventView) -> None:
    view.apply(0, 1, 11.0, [stored([1, 2]), BlockRemoved([theirs((1, 2))])])
    assert depths(view, [1, 2], 1) == [1]


def test_two_of_the_engines_blocks_that_are_one_of_ours(view: EventView) -> None:
    """As of two adapters of one name, one after the other."""
    view.apply(0, 1, 11.0, [BlockStored([b"x"], None, [1], 1)])
    view.apply(0, 2, 12.0, [BlockRemoved([b"x"]), BlockRemoved([theirs((1,))])])
    assert depths(view, [1, 2], 1) == [0]
    assert view.reached(0) == 3


def test_a_worker_that_left_holds_nothing(view: EventView) -> None:
    view.leave(0)
    view.join(0, 0)
    assert depths(view, [1, 2], 1) == [0]
    assert not view._holders
