"""The KV cache of a simulated worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyperpd.plan.simulate.cache import Cache
from hyperpd.plan.trace import BLOCK_TOKENS


def filled(cache: Cache, *blocks: int) -> None:
    """A sequence computed these blocks and went."""
    cache.take(BLOCK_TOKENS * len(blocks))
    cache.fill(blocks)
    cache.let_go(blocks)


def test_what_was_computed_is_found_by_its_beginning() -> None:
    cache = Cache(10 * BLOCK_TOKENS)
    filled(cache, 1, 2, 3)
    assert cache.match((1, 2, 4)) == 2
    assert cache.match((2, 3)) == 2  # an id stands for all before it
    assert cache.match((5, 1)) == 0
    assert cache.room_tokens == cache.capacity_tokens
    assert cache.held_share == 0


def test_the_least_recently_used_goes_first_and_of_a_prompt_its_end() -> None:
    cache = Cache(4 * BLOCK_TOKENS)
    filled(cache, 1, 2)
    filled(cache, 3, 4)
    cache.hold((1,))
    cache.let_go((1,))
    cache.take(BLOCK_TOKENS)
    assert cache.match((1, 2)) == 1
    cache.take(BLOCK_TOKENS)
    assert cache.match((3, 4)) == 1
    cache.take(BLOCK_TOKENS)
    assert cache.match((3,)) == 0
    assert cache.match((1,)) == 1


def test_held_blocks_stay() -> None:
    cache = Cache(3 * BLOCK_TOKENS)
    filled(cache, 1, 2)
    cache.hold((1, 2))
    assert cache.room_tokens == BLOCK_TOKENS
    cache.take(BLOCK_TOKENS)
    assert cache.match((1, 2)) == 2
    assert cache.held_share == 1


def test_a_block_computed_twice_is_one() -> None:
    cache = Cache(4 * BLOCK_TOKENS)
    for _ in range(2):
        cache.take(2 * BLOCK_TOKENS)
    cache.fill((1, 2))
    cache.fill((1, 2))
    assert cache.free_tokens == 2 * BLOCK_TOKENS
    cache.let_go((1, 2))
    assert cache.room_tokens == 2 * BLOCK_TOKENS
    cache.let_go((1, 2))
    assert cache.room_tokens == cache.capacity_tokens


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.booleans()), max_size=40))
def test_tokens_add_up(sequences: list[tuple[list[int], bool]]) -> None:
    """Whatever comes and goes: free, held and kept are the capacity."""
    cache = Cache(12 * BLOCK_TOKENS)
    running: list[tuple[int, ...]] = []
    for path, ends in sequences:
        blocks = tuple(hash(tuple(path[: depth + 1])) for depth in range(len(path)))
        found = cache.match(blocks)
        cache.hold(blocks[:found])
        tokens = BLOCK_TOKENS * (len(blocks) - found)
        if tokens > cache.room_tokens:
            cache.let_go(blocks[:found])
            continue
        cache.take(tokens)
        cache.fill(blocks[found:])
        running.append(blocks)
        if ends:
            cache.let_go(running.pop(0))
        held = len({block for one in running for block in one})
        assert cache.room_tokens == cache.capacity_tokens - BLOCK_TOKENS * held
        assert all(cache.match(one) == len(one) for one in running)
