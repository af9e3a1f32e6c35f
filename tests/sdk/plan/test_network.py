"""KV transfers that share links."""

from __future__ import annotations

import pytest

from hyperpd.plan.simulate.network import Link, Network
from tests.sdk.plan.clock import Clock


def moved(*transfers: tuple[float, str, str, float], links: dict[str, float]) -> list[float]:
    """When each (start in s, sender, receiver, bytes) ends, with links in bytes/s."""
    clock = Clock()
    network = Network(clock.at)
    ends = [0.0] * len(transfers)
    made = {name: Link(bytes_s) for name, bytes_s in links.items()}
    for number, (start_s, sender, receiver, size) in enumerate(transfers):

        def start(now_s: float, number: int = number, a: str = sender, b: str = receiver, size: float = size) -> None:
            network.start(now_s, made[a], made[b], size, lambda then_s: ends.__setitem__(number, then_s))

        clock.at(start_s, start)
    clock.run()
    return ends


def test_alone_it_takes_bytes_by_the_narrower_link() -> None:
    assert moved((1.0, "p", "d", 600.0), links={"p": 300.0, "d": 100.0}) == pytest.approx([7.0])


def test_two_share_a_sender_and_the_second_gets_all_once_the_first_is_done() -> None:
    """100 bytes/s each until the first has its 200; the second has 200 left, then, and 200 bytes/s."""
    ends = moved((0.0, "p", "d", 200.0), (0.0, "p", "e", 400.0), links={"p": 200.0, "d": 900.0, "e": 900.0})
    assert ends == pytest.approx([2.0, 3.0])


def test_one_that_comes_later_slows_the_first() -> None:
    ends = moved((0.0, "p", "d", 300.0), (1.0, "q", "d", 100.0), links={"p": 100.0, "q": 100.0, "d": 100.0})
    assert ends == pytest.approx([4.0, 3.0])


def test_other_links_are_not_touched() -> None:
    links = dict.fromkeys("pqde", 100.0)
    assert moved((0.0, "p", "d", 100.0), (0.0, "q", "e", 100.0), links=links) == pytest.approx([1.0, 1.0])


def test_nothing_to_move_arrives_at_once() -> None:
    assert moved((2.0, "p", "d", 0.0), links={"p": 1.0, "d": 1.0}) == [2.0]
