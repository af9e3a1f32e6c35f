"""Traces: both formats, buckets, caps, slices."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from hyperpd.errors import RecipeError
from hyperpd.plan.trace import BLOCK_TOKENS, Request, Trace, read, slice_of, spread

DATA = Path(__file__).parents[2] / "data" / "traces"
MOONCAKE = DATA / "mooncake_conversation.jsonl.gz"


def test_mooncake_with_its_buckets() -> None:
    trace = read(MOONCAKE)
    assert len(trace.requests) == 500
    assert trace.bucket_s == pytest.approx(3.0, abs=0.01)
    assert trace.shares_prefixes
    with gzip.open(MOONCAKE, "rt") as lines:
        first = json.loads(lines.readline())
    assert trace.requests[0] == Request(0.0, first["input_length"], first["output_length"], tuple(first["hash_ids"]))


def test_csv_has_exact_times_and_no_prefixes() -> None:
    trace = read(DATA / "azure2023_conv.csv.gz")
    assert (len(trace.requests), trace.bucket_s, trace.shares_prefixes) == (600, 0.0, False)
    assert trace.requests[1] == Request(4.315, 396, 109)


def test_plain_files_and_further_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("timestamp_ms,input_length,output_length,reason_ratio\n2000,5,7,0.5\n1000,3,4,0.1\n")
    assert read(path).requests == (Request(0.0, 3, 4), Request(1.0, 5, 7))


def test_spread_stays_within_buckets_and_follows_the_seed() -> None:
    trace = read(MOONCAKE)
    one, same, other = spread(trace, 1), spread(trace, 1), spread(trace, 2)
    assert one == same
    assert one.requests != other.requests
    assert one.bucket_s == 0
    was = sorted(trace.requests, key=lambda request: (request.blocks, request.output_tokens, request.arrival_s))
    now = sorted(one.requests, key=lambda request: (request.blocks, request.output_tokens, request.arrival_s))
    assert all(0 <= b.arrival_s - a.arrival_s < 3.01 for a, b in zip(was, now, strict=True))
    times = [request.arrival_s for request in one.requests]
    assert times == sorted(times)
    exact = read(DATA / "azure2023_conv.csv.gz")
    assert spread(exact, 1) is exact


def test_long_prompts_are_cut_and_counted() -> None:
    whole, trace = read(MOONCAKE), read(MOONCAKE, max_len_tokens=20_000)
    assert trace.capped == sum(one.input_tokens + one.output_tokens > 20_000 for one in whole.requests) > 0
    for request in trace.requests:
        assert request.input_tokens + request.output_tokens <= 20_000
        assert len(request.blocks) == -(-request.input_tokens // BLOCK_TOKENS)


def test_a_slice_is_sped_up_and_begins_again_with_new_blocks() -> None:
    trace = Trace("t", (Request(0.0, 600, 1, (0, 1)), Request(6.0, 600, 1, (0, 2))), span_s=10.0)
    assert slice_of(trace, 5.0, 1.0, speed=2.0) == [Request(0.5, 600, 1, (0, 2))]
    turns = slice_of(trace, 5.0, 13.0)
    assert [one.arrival_s for one in turns] == [1.0, 5.0, 11.0]
    assert [one.blocks for one in turns] == [(0, 2), (3, 4), (3, 5)]


def test_between_counts_from_its_start() -> None:
    trace = Trace("t", (Request(0.0, 9, 1), Request(6.0, 8, 1), Request(9.0, 7, 1)), span_s=10.0)
    part = trace.between(5.0, 9.0)
    assert (part.requests, part.span_s) == ((Request(1.0, 8, 1),), 4.0)
    with pytest.raises(RecipeError, match="it covers 10 s"):
        trace.between(5.0, 11.0)
    with pytest.raises(RecipeError, match="no request"):
        trace.between(1.0, 5.0)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "", "ends in .jsonl or .csv"),
        ("a.csv", "timestamp_ms,input_length,output_length\n0,1,1\n1,x,1\n", r"(?s)a\.csv:3.*invalid literal"),
        ("a.csv", "timestamp_ms,input_length,output_length\n0,1,1\n1,1,0\n", "below one token"),
        ("a.csv", "time,input_length,output_length\n0,1,1\n1,1,1\n", "timestamp_ms"),
        ("a.csv", "timestamp_ms,input_length,output_length\n0,1,1\n", "1 requests; a trace has at least two"),
        ("a.jsonl", '{"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [1]}\n', "not one for each"),
        ("a.jsonl", "{", "cannot be read"),
        ("a.jsonl.gz", "plain", "cannot be read"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(RecipeError, match=says):
        read(path)
