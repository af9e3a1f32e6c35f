"""hyperpd replay, as read by people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Hyperpd = Callable[..., tuple[int, str, str]]

TRACES = Path(__file__).parents[2] / "data" / "traces"
MOONCAKE, AZURE = TRACES / "mooncake_conversation.jsonl.gz", TRACES / "azure2023_conv.csv.gz"
SHORT = ("--slice-s", 15, "--warm-up-s", 5, "--load", 0.5)


def test_what_was_done_to_the_trace_is_said(hyperpd: Hyperpd) -> None:
    code, out, _ = hyperpd("replay", MOONCAKE, *SHORT, "--seeds", 2, "--policy", "round_robin", "--policy", "lmetric")
    assert code == 0
    assert "arrivals were recorded each 3 s; each seed spreads them evenly within" in out
    assert "2p2d: 2 prefill (8192 tokens a step, 426,113 cached), 2 decode" in out
    assert {line.split()[0] for line in out.splitlines() if " predicted_cost " in line} == {"round_robin", "lmetric"}
    assert "x real time" in out


def test_several_gateways_are_said(hyperpd: Hyperpd) -> None:
    code, out, _ = hyperpd("replay", AZURE, *SHORT, "--seeds", 1, "--layout", "4xtp4", "--gateways", 3)
    assert code == 0
    assert "3 gateways take requests in turn" in out


def test_a_csv_says_that_nothing_is_shared(hyperpd: Hyperpd) -> None:
    code, out, _ = hyperpd("replay", AZURE, *SHORT, "--seeds", 1, "--layout", "4xtp4", "--chunk-tokens", 512)
    assert code == 0
    assert "nothing is found in a cache" in out
    assert "arrivals were recorded each" not in out
    assert "4xtp4: 4 aggregated (512 tokens a step" in out


def test_aggregated_workers_have_no_decider(hyperpd: Hyperpd) -> None:
    code, out, _ = hyperpd("replay", AZURE, *SHORT, "--seeds", 1, "--layout", "4xtp4", "--decider", "all")
    assert code == 0
    assert sum(line.startswith("marginal_slo_cost") for line in out.splitlines()) == 1


def test_a_recipes_fleet_with_its_cap(hyperpd: Hyperpd) -> None:
    code, out, _ = hyperpd("replay", MOONCAKE, *SHORT, "--seeds", 1, "--recipe", "llama-3.3-70b-p5en-4p2d")
    assert code == 0
    assert "llama-3.3-70b-p5en-4p2d: 4 prefill" in out
    assert "prompts were cut to fit 16384 tokens with their answers" in out


def test_wrong_use(hyperpd: Hyperpd, tmp_path: Path) -> None:
    code, _, err = hyperpd("replay", MOONCAKE, "--layout", "2p2d", "--recipe", "llama-3.3-70b-p5en-4p2d")
    assert (code, "both name a fleet" in err) == (2, True)
    code, _, err = hyperpd("replay", tmp_path / "none.csv")
    assert (code, "cannot be read" in err) == (2, True)
    code, _, err = hyperpd("replay", MOONCAKE, "--decider", "allways", "--policy", "roundrobin")
    assert (code, "did you mean always?" in err, "did you mean round_robin?" in err) == (2, True, True)
    code, _, err = hyperpd("replay", MOONCAKE, "--recipe", "tiny-cpu-1p1d")
    assert (code, "no step times" in err) == (2, True)
