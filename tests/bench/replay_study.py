"""Which rules and layouts serve which traffic best: Llama-3.3-70B on two p5.48xlarge, simulated. Not run by CI.

python tests/bench/replay_study.py TRACES [--only WORD ...] [--seeds 5]     plays what has not been played
python tests/bench/replay_study.py TRACES --table                           the tables of what has been

Four aggregated workers at TP4 against 2P+2D, 1P+3D and 3P+1D at TP4, KV at line rate, TTFT 2 s, ITL 50 ms as a
request's mean. First, on the early part of each trace, the aggregated fleet's chunk is tuned: the one that sustains
most, and a rate is sustained while at least 0.9 of the share of requests that meets the objectives at a tenth of the
trace's rate still does (a prompt of 40,000 tokens never does); by least_tokens, so that loads do not move with the
default. Loads are 0.6, 1.0 and 1.6 times that rate. On the later part, every policy is played with the default decider
and every decider with the default policy, each with every seed.

A run is a line of results/replay_study.csv, bound to the code it ran by a digest; runs of other code are played again.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from hyperpd.plan import trace as traces
from hyperpd.plan.baselines import DECIDERS, POLICIES
from hyperpd.plan.replay import DEFAULT_DECIDER, DEFAULT_POLICY, Played, Rules, Slice, play
from hyperpd.plan.simulate import Fleet, fleet_of, recipe_of
from hyperpd.plan.statistics import Estimate, difference, estimate
from hyperpd.plan.trace import Trace
from hyperpd.routing.knowledge import SLO

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
CELLS, TUNING = RESULTS / "replay_study.csv", RESULTS / "replay_tuning.json"
OBJECTIVES = SLO(ttft_s=2.0, itl_s=0.050)
AGGREGATED = "4xtp4"
LAYOUTS = (AGGREGATED, "2p2d", "1p3d", "3p1d")
LOADS = ((1.6, 1.0), (0.6,))  # those that tell most first
CHUNKS = (512, 1024, 2048, 4096, 8192)
EARLY = 0.45  # share of a trace that is for tuning
DEFAULT = Rules(DEFAULT_POLICY, DEFAULT_DECIDER)
TUNED_BY = Rules("least_tokens", DEFAULT_DECIDER)
COLUMNS = (
    *("trace", "load", "layout", "policy", "decider", "seed", "code", "rate_per_s", "requests", "goodput_per_s"),
    *("attained", "ttft_attained", "tpot_attained", "ttft_p50_ms", "ttft_p95_ms", "tpot_p50_ms", "tpot_p95_ms"),
    *("itl_p99_ms", "e2e_p50_ms", "e2e_p95_ms", "hit_rate", "remote_share", "preemptions", "real_time"),
)


@dataclass(frozen=True)
class Subject:
    """A trace, and how much of it a run takes, in simulated seconds."""

    name: str
    file: str
    part: Slice


SUBJECTS = (
    Subject("mooncake", "mooncake_conversation_0-45min.jsonl.gz", Slice(600, 180)),
    Subject("azure", "azure2023_conv.csv.gz", Slice(600, 60)),
    Subject("reasoning", "servegen_deepseek-r1_20h_5rps_20min.csv.gz", Slice(600, 120)),
    # Two minutes hold more of its tiny requests than ten of the others'.
    Subject("tiny", "servegen_m-small_20h_10rps_20min.csv.gz", Slice(120, 30)),
    # Long prompts that share much: kvcache-ai/Mooncake, FAST25-release/traces.
    Subject("synthetic", "synthetic_trace.jsonl", Slice(600, 180)),
)


def main() -> None:
    """Play or print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("traces", type=Path, help="the folder of the traces")
    parser.add_argument("--only", nargs="*", default=[], help="cells whose name has each word, as in mooncake 2p2d 1.6")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="print the tables of what has been played")
    args = parser.parse_args()
    if args.table:
        for line in tables():
            print(line)
        return
    play_all(args.traces, args.only, args.seeds)


def tuned(subject: Subject, trace: Trace) -> tuple[float, int]:
    """The rate that the aggregated fleet sustains, in requests/s, and the chunk it does so with; kept in a file."""
    found = json.loads(TUNING.read_text()) if TUNING.exists() else {}
    if subject.name not in found:
        early = trace.between(0, trace.span_s * EARLY)
        best_speed, best_chunk = 0.0, 0
        for chunk in CHUNKS:
            fleet = fleet_of(recipe_of(AGGREGATED)).chunked(chunk, "aggregated")
            enough = 0.9 * attained(fleet, early, subject, 0.1)
            low, high = best_speed, best_speed or 0.1
            while attained(fleet, early, subject, high) >= enough:
                low, high = high, 2 * high
            if low == best_speed:
                continue  # it sustains no more than another chunk
            for _ in range(5):
                middle = (low + high) / 2
                low, high = (middle, high) if attained(fleet, early, subject, middle) >= enough else (low, middle)
            print(f"{subject.name}: chunk {chunk} sustains {low * trace.rate_per_s:.2f}/s", flush=True)
            best_speed, best_chunk = low, chunk
        found[subject.name] = {"rate_per_s": best_speed * trace.rate_per_s, "chunk_tokens": best_chunk}
        TUNING.write_text(json.dumps(found, indent=1) + "\n")
    return found[subject.name]["rate_per_s"], found[subject.name]["chunk_tokens"]


def attained(fleet: Fleet, early: Trace, subject: Subject, speed: float) -> float:
    """Share of requests that meet the objectives on the early part, over three seeds."""
    part = Slice(subject.part.length_s / 2, subject.part.warm_up_s, speed)
    played = [play(fleet, early, TUNED_BY, OBJECTIVES, part, seed) for seed in range(3)]
    return sum(one.measures.attained for one in played) / len(played)


def contenders(layout: str) -> list[Rules]:
    """Every policy with the default decider, then every decider with the default policy."""
    found = [Rules(policy, DEFAULT_DECIDER) for policy in POLICIES]
    if layout != AGGREGATED:
        found += [Rules(DEFAULT_POLICY, decider) for decider in DECIDERS if decider != DEFAULT_DECIDER]
    return found


def play_all(folder: Path, only: list[str], seeds: int) -> None:
    """Play what is missing, a seed of every cell before the next seed, the loads that tell most first.

    What has no file in the folder is left out, and said.
    """
    there = [subject for subject in SUBJECTS if (folder / subject.file).exists()]
    for subject in SUBJECTS:
        if subject not in there:
            print(f"{subject.name} is left out: there is no {folder / subject.file}", flush=True)
    code = code_digest()
    done = {(row["code"], *key(row)) for row in rows()}
    new = not CELLS.exists()
    with CELLS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        for loads, seed, subject in itertools.product(LOADS, range(seeds), there):
            cells = [
                (load, layout)
                for load, layout in itertools.product(loads, LAYOUTS)
                if {*only} <= {subject.name, layout, str(load)}
            ]
            if not cells:
                continue
            trace = traces.read(folder / subject.file, max_len_tokens=131_072)
            rate_per_s, chunk_tokens = tuned(subject, trace)
            later = trace.between(trace.span_s * EARLY, trace.span_s)
            for load, layout in cells:
                fleet = fleet_for(layout, chunk_tokens)
                part = Slice(subject.part.length_s, subject.part.warm_up_s, load * rate_per_s / later.rate_per_s)
                for rules in contenders(layout):
                    cell = (subject.name, str(load), layout, rules.policy, rules.decider, str(seed))
                    if (code, *cell) not in done:
                        played = play(fleet, later, rules, OBJECTIVES, part, seed)
                        writer.writerow(line(cell, code, load * rate_per_s, played))
                        file.flush()
                print(f"seed {seed} {subject.name} {load} {layout}", flush=True)


def fleet_for(layout: str, chunk_tokens: int) -> Fleet:
    """The tuned chunk for who decodes; vLLM's default for who only prefills."""
    return fleet_of(recipe_of(layout)).chunked(chunk_tokens, "aggregated", "decode")


def line(cell: tuple[str, ...], code: str, rate_per_s: float, played: Played) -> list[str]:
    """A run's row."""
    found = played.measures
    figures = (
        *(found.goodput_per_s, found.attained, found.ttft_attained, found.tpot_attained, found.ttft_ms["p50"]),
        *(found.ttft_ms["p95"], found.tpot_ms["p50"], found.tpot_ms["p95"], found.itl_ms["p99"], found.e2e_ms["p50"]),
        *(found.e2e_ms["p95"], found.hit_rate, found.remote_share, found.preemptions, played.real_time),
    )
    numbers = [f"{figure:.5g}" for figure in figures]
    return [*cell, code, f"{rate_per_s:.4g}", str(found.requests), *numbers]


def rows() -> list[dict[str, str]]:
    """What has been played."""
    if not CELLS.exists():
        return []
    with CELLS.open(newline="") as file:
        return list(csv.DictReader(file))


def key(row: dict[str, str]) -> tuple[str, ...]:
    """What a run is known by."""
    return tuple(row[column] for column in COLUMNS[:6])


def code_digest() -> str:
    """Of everything that decides or simulates."""
    digest, sources = hashlib.sha256(), ROOT / "sdk" / "hyperpd"
    for room in ("routing", "plan/baselines", "plan/simulate"):
        for path in sorted((sources / room).rglob("*.py")):
            digest.update(path.read_bytes())
    for name in ("replay", "steptime", "trace"):
        digest.update((sources / "plan" / f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]


Cells = dict[tuple[str, str, str], dict[Rules, dict[int, float]]]


def tables() -> Iterator[str]:
    """What has been played with the newest code: rules in each cell, then layouts."""
    played = rows()
    if not played:
        yield "nothing has been played"
        return
    code = played[-1]["code"]
    cells: Cells = {}
    for row in played:
        if row["code"] == code:
            cell = cells.setdefault((row["trace"], row["load"], row["layout"]), {})
            cell.setdefault(Rules(row["policy"], row["decider"]), {})[int(row["seed"])] = float(row["goodput_per_s"])
    yield f"Goodput in requests/s, means over seeds ± 95 %; ahead: seed by seed, of the best other. Code {code}."
    yield ""
    behind: list[str] = []
    yield from by_rules(cells, behind)
    yield ""
    yield f"Behind the best other by more than that noise: {'; '.join(behind) or 'nowhere'}."
    yield ""
    yield from by_layout(cells)


def by_rules(cells: Cells, behind: list[str]) -> Iterator[str]:
    """The default against the best other policy and the best other decider. behind: takes those it is behind of."""
    yield "| trace | load | layout | seeds | default | best other policy | ahead | best other decider | ahead |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, cell in sorted(cells.items(), key=lambda one: _place(one[0])):
        own = cell.get(DEFAULT)
        if not own:
            continue
        parts = []
        for others in (
            {rules: runs for rules, runs in cell.items() if rules.policy != DEFAULT_POLICY},
            {rules: runs for rules, runs in cell.items() if rules.decider != DEFAULT_DECIDER},
        ):
            if not others:
                parts += ["–", "–"]
                continue
            best = max(others, key=lambda rules, found=others: fmean(found[rules].values()))
            seeds = sorted(set(own) & set(others[best]))
            gap = difference([own[seed] for seed in seeds], [others[best][seed] for seed in seeds])
            label = best.policy if best.policy != DEFAULT_POLICY else best.decider
            parts += [f"{label} {text(list(others[best].values()))}", told(gap, "+")]
            if gap.within is not None and gap.high < 0:
                share = -gap.mean / fmean(others[best].values())
                behind.append(f"{' '.join(name)} {label} {share:.1%}")
        yield f"| {' | '.join([*name, str(len(own)), text(list(own.values())), *parts])} |"


def by_layout(cells: Cells) -> Iterator[str]:
    """The default in each layout; beside the aggregated fleet's, its best policy."""
    yield f"| trace | load | {' | '.join(LAYOUTS)} | best policy of {AGGREGATED} |"
    yield f"|---|---|{'---|' * len(LAYOUTS)}---|"
    for trace, load in dict.fromkeys(name[:2] for name in sorted(cells, key=_place)):
        found = [cells.get((trace, load, layout), {}) for layout in LAYOUTS]
        parts = [text(list(cell[DEFAULT].values())) if DEFAULT in cell else "–" for cell in found]
        best = max(found[0], key=lambda rules: fmean(found[0][rules].values()), default=None)
        parts.append(f"{best.policy} {text(list(found[0][best].values()))}" if best else "–")
        yield f"| {trace} | {load} | {' | '.join(parts)} |"


def _place(cell: tuple[str, str, str]) -> tuple[int, float, int]:
    name, load, layout = cell
    return [subject.name for subject in SUBJECTS].index(name), -float(load), LAYOUTS.index(layout)


def text(values: list[float]) -> str:
    """A mean with its interval."""
    return told(estimate(values))


def told(value: Estimate, sign: str = "") -> str:
    """Three digits behind the point."""
    within = "" if value.within is None else f" ± {value.within:.3f}"
    return f"{value.mean:{sign}.3f}{within}"


if __name__ == "__main__":
    main()
