"""Rendered jobs for real: two at once on the same two nodes, from sbatch to an answer, and every way to end.

The tests go on from each other, in this order: starting engines is what takes the time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hyperpd import model
from hyperpd.environment import model_path
from hyperpd.recipe import load
from tests.real.fleet import until
from tests.real.prompts import complete, differences, prompt
from tests.slurm.cluster import KILL_WAIT_S, Slurm
from tests.slurm.jobs import Job, rendered

TOKENS = 1400
_ENGINE = "{enforce-eager: true, kv-cache-memory-bytes: 134217728, max-num-seqs: 32}"
_MODEL = "{generated: tiny-llama, max_len_tokens: 2048, dtype: float32"
PAIR = f"""version: 1
name: pair
accelerator: cpu
model: {_MODEL}}}
prefill: {{engine: {_ENGINE}}}
decode: {{engine: {_ENGINE}}}
kv_transfer: {{lease_s: 60}}
gateway: {{decider: always}}
drain_s: 20
"""
OTHER = f"""version: 1
name: other
accelerator: cpu
model: {_MODEL}, served_as: other}}
aggregated: {{engine: {_ENGINE}}}
drain_s: 5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def pair(cluster: Slurm, folder: Path) -> Iterator[Job]:
    """Prefill on the first node and decode on the second."""
    job = Job(cluster, rendered(PAIR, folder, "prefill_partition=first", "decode_partition=second", "time=0:30:00"))
    yield job
    job.end()


@pytest.fixture(scope="module")
def other(cluster: Slurm, folder: Path, pair: Job) -> Iterator[Job]:
    """An aggregated worker on the first node, another job's."""
    pair.wait()
    job = Job(cluster, rendered(OTHER, folder, "partition=first"))
    yield job
    job.end()


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=120) as client:
        yield client


def test_a_request_is_answered_with_kv_moved_between_the_nodes(cluster: Slurm, pair: Job, http: httpx.Client) -> None:
    ready_s, began = pair.wait(), time.monotonic()
    body = {"model": "tiny-llama", "prompt": prompt(TOKENS, 0), "max_tokens": 4, "stream": True}
    with http.stream("POST", f"{pair.url}/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        token_s = time.monotonic() - began
        assert "data: [DONE]" in list(lines)
    print(f"\nsbatch to ready {ready_s:.1f} s, to the first token of a request sent then {ready_s + token_s:.1f} s")
    before = cluster.bytes_out(0)
    complete(http, pair.url, prompt(TOKENS, 1))
    moved = cluster.bytes_out(0) - before
    file = load(pair.script.parent / "recipe.yaml")
    expected = TOKENS * model.load(Path(model_path(file.recipe)), file.recipe.model.dtype).kv_bytes_per_token
    print(f"node-1 sent {moved} bytes over its veth; KV cache of {TOKENS} tokens: {expected}")
    assert expected <= moved < 1.25 * expected


def test_an_answer_equals_that_of_an_aggregated_worker(pair: Job, other: Job, http: httpx.Client) -> None:
    print(f"\nsecond job on the same nodes: sbatch to ready {other.wait():.1f} s")
    text = prompt(700, 4)
    ours = complete(http, pair.url, text, logprobs=5)
    assert differences(ours, complete(http, other.url, text, model="other", logprobs=5)) == []
    metrics = http.get(f"{pair.admin_url}/metrics").text
    assert 'hyperpd_requests_total{mode="pd",outcome="ok",why="plain"} 3.0' in metrics
    assert 'mode="recomputed"' not in metrics


def test_two_jobs_on_the_same_nodes_do_not_meet(cluster: Slurm, pair: Job, other: Job, http: httpx.Client) -> None:
    assert (cluster.show(pair.id)["NodeList"], cluster.show(pair.id, 1)["NodeList"]) == ("node-1", "node-2")
    assert cluster.show(other.id)["NodeList"] == "node-1"
    ports = {job.name: {url.rsplit(":", 1)[1] for url in job.workers().values()} for job in (pair, other)}
    assert pair.workers().keys() == {"prefill-0", "decode-0"}
    assert other.workers().keys() == {"aggregated-0"}
    assert not ports["pair"] & ports["other"]
    for job, theirs in ((pair, "other"), (other, "tiny-llama")):
        body = {"model": theirs, "prompt": "hello", "max_tokens": 1}
        assert http.post(f"{job.url}/v1/completions", json=body).status_code == 404


def test_what_a_job_writes_is_its_users_alone(pair: Job) -> None:
    for path in [pair.folder.parent, *pair.folder.parent.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_worker_that_is_killed_vanishes_and_comes_again(cluster: Slurm, pair: Job, http: httpx.Client) -> None:
    (line,) = [
        one
        for one in cluster.processes()
        if "-m hyperpd_runtime --role decode" in one and one.split()[2].endswith("python")
    ]
    began = time.monotonic()
    os.kill(int(line.split()[1]), signal.SIGKILL)
    until(lambda: "decode-0" not in pair.listed(), 30)
    gone_s = time.monotonic() - began
    until(lambda: "decode-0" not in pair.workers(), 30)
    until(lambda: "decode-0" in pair.listed(), 120)
    until(lambda: pair.ready() and pair.proven(), 60)
    print(f"\ngone from the endpoints file after {gone_s:.1f} s, ready again after {time.monotonic() - began:.1f} s")
    assert "decode-0 failed with exit code 137; 3 restarts left" in pair.log
    assert complete(http, pair.url, prompt(300, 2))["choices"][0]["text"]


def test_scancel_leaves_nothing(cluster: Slurm, pair: Job, other: Job) -> None:
    assert other.leftovers() != []
    began = time.monotonic()
    cluster.run("scancel", other.id)
    assert cluster.ended(other.id) == "CANCELLED"
    print(f"\nscancel: ended after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < KILL_WAIT_S  # by itself
    assert other.leftovers() == []
    assert pair.ready()  # which has nothing to do with it


def test_a_requeued_job_begins_anew(cluster: Slurm, pair: Job, http: httpx.Client) -> None:
    cluster.run("scontrol", "requeue", pair.id)
    until(lambda: cluster.state(pair.id) == "PENDING", 90)
    until(lambda: cluster.processes() == [], 30)
    assert cluster.ports() == []
    assert pair.leftovers() == []
    first = pair.folder
    for part in range(2):  # Slurm would wait two minutes
        cluster.run("scontrol", "update", f"JobId={pair.id}+{part}", "StartTime=now")
    pair.restart, pair.began = 1, time.monotonic()
    print(f"\nrequeued: ready after {pair.wait():.1f} s")
    assert first != pair.folder
    assert (first / "decode-0.log").exists()
    assert f"job {pair.id}, run 0" in pair.log  # of the first run: the log goes on
    assert f"job {pair.id}, run 1" in pair.log
    assert complete(http, pair.url, prompt(300, 3))["choices"][0]["text"]


def test_before_its_time_limit_a_job_finishes_what_runs(cluster: Slurm, pair: Job, http: httpx.Client) -> None:
    """One stream after the other, until the gateway takes no more: each that has begun comes to its end."""
    cluster.run("scontrol", "update", f"JobId={pair.id}", f"TimeLimit={cluster.run_time_s(pair.id) // 60 + 2}")
    finished: list[bool] = []  # whether the job had begun to end by then
    body = {"model": "tiny-llama", "prompt": "a", "max_tokens": 1200, "stream": True, "ignore_eos": True}
    asked = http.build_request("POST", f"{pair.url}/v1/completions", json=body)
    while True:
        try:
            answer = http.send(asked, stream=True)
        except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            break  # it left between the end of one stream and this request: nothing of it was answered
        with contextlib.closing(answer):
            if answer.status_code == 503:
                break
            assert answer.status_code == 200
            assert list(answer.iter_lines())[-2:] == ["data: [DONE]", ""]
            finished.append("ending" in pair.log.split("run 1:")[1])
    end = time.monotonic()
    state = cluster.ended(pair.id)
    print(f"\n{len(finished)} streams, the last {'while' if finished[-1] else 'before'} the job was ending;")
    print(f"{state} {time.monotonic() - end:.1f} s after it")
    assert finished[-1]
    assert state == "COMPLETED", pair.log
    assert "ended with exit code 0" in pair.log
    assert (cluster.processes(), cluster.ports(), pair.leftovers()) == ([], [], [])
