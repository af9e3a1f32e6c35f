"""Traces: who asked when, how much, and what prompts share. Read from files, cut into slices, sped up.

Formats, by the file's ending, each also with .gz:

- .jsonl: Mooncake's (kvcache-ai/Mooncake, FAST25-release/traces): `timestamp` in ms, `input_length`,
  `output_length`, `hash_ids`: an id for each 512 tokens, which stands for its tokens and all before them.
- .csv: `timestamp_ms,input_length,output_length`; further columns are left alone. Nothing is known of what its
  prompts share, so that no policy can be judged by its cache hits.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import random
import statistics
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hyperpd.errors import RecipeError

BLOCK_TOKENS = 512  # of one id in Mooncake's files


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `blocks`: ids of its prompt's blocks of 512 tokens, the last may be partial; () where unknown."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival. `bucket_s`: the file's times are multiples of it (0: they are exact);
    `capped`: requests whose prompts were cut to fit the model; `span_s`: the time the trace covers."""

    name: str
    requests: tuple[Request, ...]
    span_s: float
    bucket_s: float = 0.0
    capped: int = 0

    @property
    def rate_per_s(self) -> float:
        """Requests in a second, on average."""
        return len(self.requests) / self.span_s

    @property
    def shares_prefixes(self) -> bool:
        """Whether it says what prompts have in common."""
        return any(request.blocks for request in self.requests)

    def between(self, start_s: float, end_s: float) -> Trace:
        """The part from `start_s` to `end_s`, its times counted from `start_s`. Raises RecipeError where none is."""
        if not 0 <= start_s < end_s <= self.span_s + self.bucket_s:
            raise RecipeError(self.name, [f"no part from {start_s:g} to {end_s:g} s; it covers {self.span_s:g} s"])
        times = [request.arrival_s for request in self.requests]
        kept = self.requests[bisect_left(times, start_s) : bisect_left(times, end_s)]
        if not kept:
            raise RecipeError(self.name, [f"no request from {start_s:g} to {end_s:g} s"])
        moved = tuple(replace(one, arrival_s=one.arrival_s - start_s) for one in kept)
        return replace(self, requests=moved, span_s=end_s - start_s)


def read(path: Path, max_len_tokens: int | None = None) -> Trace:
    """The trace in `path`. Prompts that leave no room for their output within `max_len_tokens` are cut, and counted
    in `capped`. Raises RecipeError with the line that cannot be read."""
    parse = _parser(path)
    requests, capped = [], 0
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for number, fields in parse(lines):
                try:
                    request = _request(fields)
                except (KeyError, TypeError, ValueError) as error:
                    raise RecipeError(f"{path}:{number}", [f"no request: {error!r}; see {__name__}"]) from None
                if max_len_tokens and request.input_tokens + request.output_tokens > max_len_tokens:
                    request, capped = _cut(request, max_len_tokens), capped + 1
                requests.append(request)
    except (OSError, EOFError, ValueError) as error:
        raise RecipeError(str(path), [f"cannot be read: {error}"]) from None
    if len(requests) < 2:
        raise RecipeError(str(path), [f"{len(requests)} requests; a trace has at least two"])
    requests.sort(key=lambda one: one.arrival_s)
    first_s = requests[0].arrival_s
    ordered = tuple(replace(one, arrival_s=one.arrival_s - first_s) for one in requests)
    bucket_s = _bucket_s([one.arrival_s for one in ordered])
    span_s = max(ordered[-1].arrival_s + bucket_s, 1e-3)
    return Trace(path.name, ordered, span_s, bucket_s, capped)


def spread(trace: Trace, seed: int) -> Trace:
    """`trace` with the requests of each bucket at uniform times within it, drawn with `seed`; its own where exact."""
    if not trace.bucket_s:
        return trace
    draw = random.Random(seed).random
    moved = [replace(one, arrival_s=one.arrival_s + draw() * trace.bucket_s) for one in trace.requests]
    moved.sort(key=lambda one: one.arrival_s)
    return replace(trace, requests=tuple(moved), bucket_s=0.0)


def slice_of(trace: Trace, start_s: float, length_s: float, speed: float = 1.0) -> list[Request]:
    """What arrives within `length_s` once `start_s` of `trace` is now and its time runs `speed` times as fast.

    A trace that ends sooner begins again, its blocks renamed: a prompt seen in the last round is not seen again.
    """
    renamed = 1 + max((max(one.blocks) for one in trace.requests if one.blocks), default=0)
    first = bisect_left([one.arrival_s for one in trace.requests], start_s)
    found: list[Request] = []
    count = len(trace.requests)
    for index in range(first, first + 1_000_000_000):
        turn, place = divmod(index, count)
        one = trace.requests[place]
        arrival_s = (one.arrival_s + turn * trace.span_s - start_s) / speed
        if arrival_s >= length_s:
            break
        blocks = tuple(block + turn * renamed for block in one.blocks) if turn else one.blocks
        found.append(Request(arrival_s, one.input_tokens, one.output_tokens, blocks))
    return found


def _parser(path: Path) -> Callable[[Any], Iterator[tuple[int, Mapping[str, Any]]]]:
    kind = (path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])[:1]
    if kind == [".jsonl"]:
        return lambda lines: ((number, json.loads(line)) for number, line in enumerate(lines, 1) if line.strip())
    if kind == [".csv"]:
        return lambda lines: enumerate(csv.DictReader(lines), 2)
    raise RecipeError(str(path), ["not a trace's name; it ends in .jsonl or .csv, or these with .gz"])


def _request(fields: Mapping[str, Any]) -> Request:
    time_ms = float(fields["timestamp"] if "timestamp" in fields else fields["timestamp_ms"])
    inputs, outputs = int(fields["input_length"]), int(fields["output_length"])
    blocks = tuple(int(block) for block in fields.get("hash_ids") or ())
    if inputs < 1 or outputs < 1:
        raise ValueError(f"lengths {inputs} and {outputs}, below one token")
    if blocks and len(blocks) != -(-inputs // BLOCK_TOKENS):
        raise ValueError(f"{len(blocks)} hash_ids for {inputs} tokens, not one for each {BLOCK_TOKENS}")
    return Request(time_ms / 1000, inputs, outputs, blocks)


def _cut(request: Request, max_len_tokens: int) -> Request:
    outputs = min(request.output_tokens, max_len_tokens - 1)
    inputs = max_len_tokens - outputs
    return Request(request.arrival_s, inputs, outputs, request.blocks[: -(-inputs // BLOCK_TOKENS)])


def _bucket_s(times_s: list[float]) -> float:
    """The step of times that were rounded to one: few distinct times, all as far apart (Mooncake: 3 s)."""
    distinct = sorted(set(times_s))
    if len(times_s) < 2 * len(distinct) or len(distinct) < 3:
        return 0.0
    gaps = [later - sooner for sooner, later in itertools.pairwise(distinct)]
    typical = statistics.median(gaps)
    even = sum(abs(gap / typical - round(gap / typical)) < 0.01 for gap in gaps)
    return typical if even >= 0.95 * len(gaps) else 0.0
