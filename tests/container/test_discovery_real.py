"""A lone gateway that knows its workers by DNS: it is there first, and outlives them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
import pytest

from tests.real.fleet import Fleet, until
from tests.real.prompts import complete, prompt

pytestmark = pytest.mark.real
RECIPE, OFFSETS = "tiny-cpu-1p1d", {"prefill": 8000, "decode": 8010}


def test_workers_that_come_and_are_replaced(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack, httpx.Client(timeout=120) as http:

        def start(name: str, role: str) -> Fleet:
            fleet = Fleet(RECIPE, tmp_path / name, OFFSETS[role], "--role", role)
            stack.callback(fleet.stop)
            return fleet

        sources = [word for role, by in OFFSETS.items() for word in (f"--{role}", f"dns://localhost:{8100 + by}")]
        gateway = Fleet(RECIPE, tmp_path / "gateway", 8500, "--role", "gateway", *sources)
        stack.callback(gateway.stop)
        until(lambda: gateway.state().get("phase") == "warming")
        ping = http.get(f"{gateway.url}/ping")
        assert (ping.status_code, "no worker can decode: " in ping.json()["reason"]) == (503, True)

        start("prefill", "prefill")
        decode = start("decode", "decode").wait()
        gateway.wait()
        answer = complete(http, gateway.url, prompt(300, 1))
        admin = gateway.state()["admin_url"]
        assert gateway.metric(admin, "hyperpd_requests_total", {"mode": "pd", "outcome": "ok"}) == 1
        decodes = [w for w in http.get(f"{admin}/status").json()["workers"] if w["role"] == "decode"]
        assert "decode-127.0.0.1:16110" in [worker["name"] for worker in decodes]

        assert decode.stop() == 0
        until(lambda: http.get(f"{gateway.url}/ping").status_code == 503)
        start("another", "decode").wait()
        until(lambda: http.get(f"{admin}/status").json()["not_as_planned"] is None)
        assert complete(http, gateway.url, prompt(300, 1))["choices"] == answer["choices"]
        assert gateway.metric(admin, "hyperpd_requests_total", {"mode": "pd", "outcome": "ok"}) == 2
