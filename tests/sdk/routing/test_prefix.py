"""PrefixView held to a model that keeps every block of every worker in a list of its own."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpd.routing.blocks import chain
from hyperpd.routing.prefix import PrefixView

TTL_S = 50.0
WORKERS = 3


class Naive:
    """One LRU of single blocks for each worker."""

    def __init__(self, capacities: Sequence[int]) -> None:
        self.capacities = capacities
        self.held: list[OrderedDict[int, float]] = [OrderedDict() for _ in capacities]

    def sent(self, worker: int, blocks: Sequence[int], now_s: float) -> None:
        """The first is used last."""
        self.expire(now_s)
        held = self.held[worker]
        for block in reversed(blocks[: self.capacities[worker]]):
            held[block] = now_s
            held.move_to_end(block)
        while len(held) > self.capacities[worker]:
            held.popitem(last=False)

    def match(self, blocks: Sequence[int], now_s: float) -> dict[int, int]:
        """Blocks held from the start on, by worker."""
        self.expire(now_s)
        depths = {}
        for worker, held in enumerate(self.held):
            depth = next((n for n, block in enumerate(blocks) if block not in held), len(blocks))
            if depth:
                depths[worker] = depth
        return depths

    def expire(self, now_s: float) -> None:
        """What was used too long ago."""
        for held in self.held:
            for block in [block for block, last_s in held.items() if last_s < now_s - TTL_S]:
                del held[block]


def view_of(capacities: Sequence[int]) -> PrefixView:
    """With workers 0, 1, …"""
    view = PrefixView(TTL_S)
    for worker, capacity in enumerate(capacities):
        view.join(worker, capacity)
    return view


def by_worker(classes: list[tuple[int, int]]) -> dict[int, int]:
    """Depth by worker; each worker in one class, most first."""
    depths: dict[int, int] = {}
    assert [depth for depth, _ in classes] == sorted((depth for depth, _ in classes), reverse=True)
    for depth, mask in classes:
        assert mask
        assert depth
        for worker in range(mask.bit_length()):
            if mask >> worker & 1:
                assert worker not in depths
                depths[worker] = depth
    return depths


# Few different tokens, so that prompts share beginnings and part at every depth.
PROMPTS = st.lists(st.sampled_from([1, 2]), max_size=9)
STEPS = st.lists(
    st.tuples(st.integers(0, WORKERS - 1), PROMPTS, st.sampled_from([0.0, 0.0, 1.0, 20.0, 50.0, 60.0]), st.booleans()),
    max_size=40,
)


@settings(max_examples=300)
@given(STEPS, st.lists(st.integers(1, 12), min_size=WORKERS, max_size=WORKERS), PROMPTS)
def test_it_knows_what_a_list_of_blocks_knows(
    steps: list[tuple[int, list[int], float, bool]], capacities: list[int], asked: list[int]
) -> None:
    view, naive = view_of(capacities), Naive(capacities)
    now_s = 0.0
    for worker, prompt, passed_s, leaves in steps:
        now_s += passed_s
        blocks = chain(prompt, 1)
        assert by_worker(view.match(blocks, now_s)) == naive.match(blocks, now_s)
        if leaves:
            view.leave(worker)
            view.join(worker, capacities[worker])
            naive.held[worker].clear()
        view.sent(worker, blocks, now_s)
        naive.sent(worker, blocks, now_s)
        for one in range(WORKERS):
            assert view.blocks_held(one) == len(naive.held[one])
    blocks = chain(asked, 1)
    assert by_worker(view.match(blocks, now_s)) == naive.match(blocks, now_s)


def test_what_nobody_holds_is_gone() -> None:
    view = view_of([100, 100])
    for start in range(50):
        view.sent(start % 2, chain(range(start, start + 60), 1), float(start))
    view.leave(0)
    view.leave(1)
    assert view._root.after is None
    assert view.match(chain(range(60), 1), 60.0) == []


def test_a_prompt_longer_than_the_cache_fills_it() -> None:
    view = view_of([4])
    blocks = chain(range(9), 1)
    view.sent(0, blocks, 0.0)
    assert view.match(blocks, 0.0) == [(4, 1)]


@pytest.mark.parametrize("tokens", [0, 15, 16, 17, 64])
def test_a_chain_has_full_blocks_only(tokens: int) -> None:
    assert len(chain(range(tokens), 16)) == tokens // 16


def test_a_block_stands_for_all_before_it() -> None:
    one, two = chain([1, 2, 3, 4], 2), chain([9, 2, 3, 4], 2)
    assert one[1] != two[1]
    assert chain([1, 2, 3, 4], 2) == one
    assert chain([1, 2, 3, 4], 2, salt=7)[0] != one[0]
    assert isinstance(one, array)


def test_workers_that_come_and_go_leave_nothing_behind() -> None:
    view = view_of([8])
    for turn in range(100):
        view.sent(0, range(1, 5), turn * 10.0)
        view.match(range(1, 5), turn * 10.0)
        view.leave(0)
        view.join(0, 8)
    view.sent(0, range(1, 5), 1_000.0)
    for now_s in (1_001.0, 1_002.0):
        assert view.match(range(1, 5), now_s) == [(4, 1)]
    assert len(view._expiry) <= TTL_S // 10 + 2
