"""What several gateways lose against one, which share nothing but what engines tell each. Simulated; not run by CI.

    PYTHONPATH=sdk:container:. python tests/bench/several_gateways.py TRACES

On the later part of each trace, at loads and layouts of the study of routing rules, with the default rules: goodput of
2 and of 4 gateways over that of one, seed by seed.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from statistics import fmean

from hyperpd.plan import trace as traces
from hyperpd.plan.replay import Slice, play
from hyperpd.plan.statistics import difference
from tests.bench.replay_study import DEFAULT, EARLY, OBJECTIVES, SUBJECTS, fleet_for, text, tuned

LOADS = (1.0, 1.6)
LAYOUTS = ("4xtp4", "2p2d")
TOGETHER = (2, 4)


def main() -> None:
    """Print a table as its lines are known."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("traces", type=Path, help="the folder of the traces")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print("| trace | load | layout | one gateway | " + " | ".join(f"{count} / 1" for count in TOGETHER) + " |")
    print("|---|---|---|---|" + "---|" * len(TOGETHER))
    for subject in SUBJECTS:
        if subject.name not in ("mooncake", "azure"):
            continue
        trace = traces.read(args.traces / subject.file, max_len_tokens=131_072)
        rate_per_s, chunk_tokens = tuned(subject, trace)
        later = trace.between(trace.span_s * EARLY, trace.span_s)
        for load, layout in itertools.product(LOADS, LAYOUTS):
            part = Slice(subject.part.length_s, subject.part.warm_up_s, load * rate_per_s / later.rate_per_s)
            fleet = fleet_for(layout, chunk_tokens)
            goodput = {
                count: [
                    play(fleet, later, DEFAULT, OBJECTIVES, part, seed, count).measures.goodput_per_s
                    for seed in range(args.seeds)
                ]
                for count in (1, *TOGETHER)
            }
            parts = [against(goodput[count], goodput[1]) for count in TOGETHER]
            print(f"| {subject.name} | {load} | {layout} | {text(goodput[1])} | {' | '.join(parts)} |", flush=True)


def against(several: list[float], one: list[float]) -> str:
    """The ratio of the means, and the interval of the difference in the same measure."""
    gap, whole = difference(several, one), fmean(one)
    return f"{1 + gap.mean / whole:.3f} ± {(gap.within or 0.0) / whole:.3f}"


if __name__ == "__main__":
    main()
