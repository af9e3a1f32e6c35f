"""hyperpd replay: a trace through a simulated fleet, under one rule or several."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperpd.cli import completion, output

if TYPE_CHECKING:
    from hyperpd.cli.documents.replay import Replayed
    from hyperpd.plan.replay import Slice, Summary
    from hyperpd.plan.simulate import Fleet
    from hyperpd.plan.statistics import Estimate
    from hyperpd.plan.trace import Trace
    from hyperpd.routing.knowledge import SLO


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--policy", "policies", multiple=True, help="Which worker; repeat it, or all.")
@click.option("--decider", "deciders", multiple=True, help="Whether another prefills; repeat it, or all.")
@click.option("--layout", help="As in 2p2d or 4xtp4, Llama-3.3-70B on p5.48xlarge; default: 2p2d.")
@click.option("--recipe", shell_complete=completion.recipe, help="A recipe's fleet instead of a layout's.")
@click.option("--chunk-tokens", type=click.IntRange(1), help="max-num-batched-tokens of workers that decode.")
@click.option(
    "--gateways", default=1, type=click.IntRange(1, 64), help="They take requests in turn, and share no state."
)
@click.option("--load", default=1.0, type=click.FloatRange(0.001), help="Times the trace's own rate.")
@click.option("--seeds", default=5, type=click.IntRange(1, 1000), help="Runs of each rule.")
@click.option("--slice-s", default=600.0, type=click.FloatRange(1), help="Simulated seconds that are measured.")
@click.option("--warm-up-s", default=180.0, type=click.FloatRange(0), help="Simulated seconds before them.")
@click.option("--start-s", type=click.FloatRange(0), help="Where in the trace; default: each seed its own.")
@click.option("--ttft-ms", type=click.FloatRange(0, min_open=True), help="Objective; default: recipe's, or 2000.")
@click.option("--itl-ms", type=click.FloatRange(0, min_open=True), help="Objective; default: recipe's, or 50.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def replay(
    trace: Path,
    policies: tuple[str, ...],
    deciders: tuple[str, ...],
    layout: str | None,
    recipe: str | None,
    chunk_tokens: int | None,
    gateways: int,
    load: float,
    seeds: int,
    slice_s: float,
    warm_up_s: float,
    start_s: float | None,
    ttft_ms: float | None,
    itl_ms: float | None,
    as_json: bool,
) -> None:
    """Simulate a fleet that serves TRACE, a Mooncake .jsonl or a .csv file, under each policy with each decider.

    The rules run as the gateway runs them; what is simulated are engines and network. It compares rules and layouts,
    and is no promise of what hardware does.
    """
    from hyperpd.plan import replay as library
    from hyperpd.plan.baselines import DECIDERS, POLICIES
    from hyperpd.plan.simulate import fleet_of, recipe_of
    from hyperpd.plan.trace import read
    from hyperpd.recipe import load as load_recipe
    from hyperpd.routing.knowledge import SLO

    if layout and recipe:
        raise click.UsageError("--layout and --recipe both name a fleet; give one of them")
    named = load_recipe(recipe).recipe if recipe else recipe_of(layout or "2p2d")
    contenders = [
        library.Rules(policy, decider)
        for policy in _named(policies, list(POLICIES), library.DEFAULT_POLICY)
        for decider in _named(deciders, list(DECIDERS), library.DEFAULT_DECIDER)
    ]
    library.known(*contenders)
    fleet = fleet_of(named)
    if chunk_tokens:
        fleet = fleet.chunked(chunk_tokens, "aggregated", "decode")
    if not fleet.role("decode"):  # whoever decides, nobody else is there to prefill
        contenders = list(dict.fromkeys(library.Rules(rules.policy) for rules in contenders))
    requests = read(trace, fleet.max_len_tokens)
    slo = SLO((ttft_ms or named.slo.ttft_ms or 2000.0) / 1000, (itl_ms or named.slo.itl_ms or 50.0) / 1000)
    part = library.Slice(slice_s, warm_up_s, load, start_s)
    summaries = library.summarize(list(library.replay(fleet, requests, contenders, slo, part, seeds, gateways)))
    if as_json:
        output.document(_document(requests, fleet, slo, part, gateways, summaries))
        return
    for line in _conditions(requests, fleet, slo, part, seeds, gateways):
        output.line(line)
    output.table(
        (
            "policy",
            "decider",
            "good/s",
            "ahead",
            "good",
            "TTFT p50 p95",
            "TPOT p50 p95",
            "ITL p99",
            "E2E p95",
            *_SHARES,
        ),
        [_row(one) for one in summaries],
    )
    real_time = min(one.real_time for one in summaries)
    output.line(
        f"times in ms; ±: 95 % over seeds; ahead: of the best other, seed by seed; {real_time:,.0f} x real time"
    )


_SHARES = ("hits", "remote")


def _named(given: tuple[str, ...], there: list[str], default: str) -> list[str]:
    return there if "all" in given else list(dict.fromkeys(given)) or [default]


def _conditions(trace: Trace, fleet: Fleet, slo: SLO, part: Slice, seeds: int, gateways: int) -> list[str]:
    roles = ", ".join(
        f"{role.workers} {role.name} ({role.limits.chunk_tokens} tokens a step, {role.limits.cache_tokens:,} cached)"
        for role in fleet.roles
    )
    rate_per_s = trace.rate_per_s * part.speed
    lines = [
        f"{trace.name}: {part.length_s:g} s after {part.warm_up_s:g} s, {rate_per_s:.2f} requests/s, {seeds} seeds",
        f"{fleet.name}: {roles}",
        f"good: first token within {slo.ttft_s * 1000:g} ms and a mean gap of at most {slo.itl_s * 1000:g} ms",
    ]
    if gateways > 1:
        lines.append(f"{gateways} gateways take requests in turn; each knows of the others' what engines say each 5 s")
    if trace.bucket_s:
        lines.append(f"arrivals were recorded each {trace.bucket_s:g} s; each seed spreads them evenly within")
    if trace.capped:
        lines.append(f"{trace.capped} prompts were cut to fit {fleet.max_len_tokens} tokens with their answers")
    if not trace.shares_prefixes:
        lines.append("the trace does not say what prompts share: nothing is found in a cache")
    return lines


def _row(one: Summary) -> list[str]:
    return [
        one.rules.policy,
        one.rules.decider,
        _text(one.goodput_per_s, 2),
        _text(one.ahead.by, 2, "+") if one.ahead else "-",
        f"{one.attained.mean:.1%}",
        f"{one.ttft_ms['p50'].mean:,.0f} {one.ttft_ms['p95'].mean:,.0f}",
        f"{one.tpot_ms['p50'].mean:,.0f} {one.tpot_ms['p95'].mean:,.0f}",
        f"{one.itl_ms['p99'].mean:,.0f}",
        f"{one.e2e_ms['p95'].mean:,.0f}",
        f"{one.hit_rate.mean:.1%}",
        f"{one.remote_share.mean:.0%}",
    ]


def _text(value: Estimate, digits: int, sign: str = "") -> str:
    within = "" if value.within is None else f" ±{value.within:.{digits}f}"
    return f"{value.mean:{sign}.{digits}f}{within}"


def _document(trace: Trace, fleet: Fleet, slo: SLO, part: Slice, gateways: int, summaries: list[Summary]) -> Replayed:
    return {
        "trace": {
            "name": trace.name,
            "requests": len(trace.requests),
            "rate_per_s": trace.rate_per_s,
            "bucket_s": trace.bucket_s,
            "capped": trace.capped,
            "shares_prefixes": trace.shares_prefixes,
        },
        "fleet": fleet.name,
        "roles": [
            {
                "role": role.name,
                "workers": role.workers,
                "chunk_tokens": role.limits.chunk_tokens,
                "cache_tokens": role.limits.cache_tokens,
            }
            for role in fleet.roles
        ],
        "slo": {"ttft_ms": slo.ttft_s * 1000, "itl_ms": slo.itl_s * 1000},
        "gateways": gateways,
        "slice": asdict(part),  # type: ignore[typeddict-item]
        "contenders": [asdict(one) for one in summaries],  # type: ignore[misc]
    }
