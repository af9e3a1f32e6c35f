"""Prompts, keys and tickets: whatever happens to a request, none of them is in what the gateway writes or shows."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from hyperpd_runtime.gateway import app, handoff, keys
from tests.container.stack import Stack, running, tiny
from tests.container.test_keys import entry
from tests.fakes import engine_wire
from tests.fakes.engine import FakeEngine

PROMPT, KEY, STRANGER, OPERATOR = "mark-of-a-prompt", "sk-mark-of-a-key", "sk-mark-of-a-stranger", "sk-mark-of-operator"
LEASE, ENGINE_ID, PEER, PORT, BLOCKS = "mark-of-a-lease", "mark-of-an-engine", "192.0.2.77", 45677, [[97, 83, 89]]
TICKET = {
    "remote_request_id": LEASE,
    "remote_engine_id": ENGINE_ID,
    "remote_host": PEER,
    "remote_port": PORT,
    "remote_block_ids": BLOCKS,
}
MARKS = (PROMPT, KEY, STRANGER, OPERATOR, LEASE, ENGINE_ID, PEER, str(PORT), "97, 83, 89", "97,83,89")
FILE = tiny(gateway={"auth": "keys"})


@pytest.fixture
async def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> AsyncIterator[Stack]:
    """With tickets that can be told from anything else."""
    del capsys  # takes the place of standard error before the server's log begins
    plain = engine_wire.ticket

    def marked(lease: str, cached: int = 0) -> dict[str, Any]:
        return {**plain(lease, cached), **TICKET, "remote_request_id": f"{LEASE}-{lease}"}

    def reads(heart: Any, params: dict[str, Any]) -> str:
        return read(heart, {**params, "remote_request_id": str(params["remote_request_id"]).removeprefix(f"{LEASE}-")})

    from tests.fakes import leases

    read = leases.Heart.read
    monkeypatch.setattr(leases.Heart, "read", reads)
    monkeypatch.setattr(engine_wire, "ticket", marked)
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([entry("team", KEY), entry("ops", OPERATOR, "operator")]))
    async with running(FILE, keys.of(FILE.recipe, str(file))) as started:
        yield started


def asked(prompt: str = PROMPT) -> list[tuple[str, dict[str, Any]]]:
    said = [{"role": "user", "content": prompt}]
    return [
        ("/v1/completions", {"prompt": prompt, "max_tokens": 4}),
        ("/v1/completions", {"prompt": [prompt, f"{prompt} too"], "n": 2, "max_tokens": 4}),
        ("/v1/chat/completions", {"messages": said, "max_tokens": 4}),
        ("/v1/responses", {"input": prompt, "max_output_tokens": 4}),
        ("/v1/messages", {"messages": said, "max_tokens": 4}),
        ("/tokenize", {"prompt": prompt}),
    ]


async def everything(stack: Stack, **more: Any) -> list[httpx.Response]:
    """Each kind of request, whole and streamed; an operator's are explained."""
    answers = []
    for path, body in asked():
        for stream in ({}, {"stream": True}) if path != "/tokenize" else ({},):
            for headers in ({"x-api-key": KEY}, {"Authorization": f"Bearer {OPERATOR}", "x-hyperpd-explain": "1"}):
                answers.append(await stack.http.post(path, json={**body, **stream, **more}, headers=headers))
    return answers


class Told:
    """All that a run has written and shown."""

    def __init__(self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
        self._capsys, self._caplog = capsys, caplog

    async def __call__(self, stack: Stack, *answers: httpx.Response, own: tuple[str, ...] = ()) -> str:
        """Holds logs, output, metrics, status and these answers free of marks, answers but for the client's `own`."""
        captured = self._capsys.readouterr()
        written = "\n".join([captured.out, captured.err, self._caplog.text])
        admin = app.admin(stack.pool, FILE, lambda: None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(admin), base_url="http://admin") as http:
            shown = [(await http.get(path)).text for path in ("/metrics", "/status")]
        shown.append((await stack.http.get("/ping")).text)
        for mark in MARKS:
            assert mark not in written, f"{mark} is in the log: {_around(written, mark)}"
            assert not [text for text in shown if mark in text], f"{mark} is shown"
            for answer in answers:
                said = f"{answer.headers}\n{answer.text}"
                assert mark in own or mark not in said, f"{mark} is in an answer: {_around(said, mark)}"
        return written


def _around(text: str, mark: str) -> str:
    (found, *_) = re.finditer(re.escape(mark), text)
    return text[max(0, found.start() - 300) : found.end() + 100]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "asyncio")
    return Told(capsys, caplog)


async def test_requests_that_are_answered(stack: Stack, told: Told) -> None:
    answers = await everything(stack)
    assert {answer.status_code for answer in answers} == {200}
    await stack.settled()
    assert [body for body in stack.decode.bodies if body.get(handoff.PARAMS)]  # marked tickets were used
    written = await told(stack, *answers, own=(PROMPT,))
    assert "key=team" in written


async def test_requests_that_are_refused(stack: Stack, told: Told) -> None:
    mine, operator = {"x-api-key": KEY}, {"Authorization": f"Bearer {OPERATOR}"}
    answers = [
        await stack.http.post(path, json=body, headers=headers)
        for path, body in asked()
        for headers in ({}, {"x-api-key": STRANGER}, {**operator, "x-api-key": KEY}, {"Authorization": f"Basic {KEY}"})
    ]
    assert {answer.status_code for answer in answers} == {401}
    bad: list[dict[str, Any]] = [
        *({"prompt": PROMPT, name: PROMPT} for name in (*app.guard.FORBIDDEN, "stream", "unknown", "n", "max_tokens")),
        *({"prompt": PROMPT, handoff.PARAMS: TICKET}, {"prompt": PROMPT, "store": True}, {"prompt": ""}),
        {"prompt": PROMPT, "model": "nobody's"},
    ]
    refused = [await stack.http.post("/v1/completions", json=body, headers=mine) for body in bad]
    raw = [f'{{"prompt": "{PROMPT}"', f'["{PROMPT}"]', f'{{"prompt": "{PROMPT}"}} {PROMPT}', f"{PROMPT}"]
    refused += [await stack.http.post("/v1/completions", content=text, headers=mine) for text in raw]
    refused.append(await stack.http.post("/v1/load_lora_adapter", json={"lora_name": PROMPT}, headers=mine))
    assert {answer.status_code for answer in refused} <= {400, 403, 404}
    assert not stack.prefill.bodies + stack.decode.bodies
    await told(stack, *answers, *refused)


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize(
    "fault", ["404", "429", "500", "no_ticket", "list", "busy", "error_event", "cut", "cut_inside", "no_path"]
)
async def test_engines_that_fail(stack: Stack, told: Told, role: str, fault: str) -> None:
    engine: FakeEngine = getattr(stack, role)
    engine.fault = fault
    answers = [
        await stack.http.post(path, json={**body, "stream": stream}, headers={"x-api-key": KEY})
        for path, body in asked()[:-1]
        if not (role == "decode" and fault == "list" and isinstance(body.get("prompt"), list))
        for stream in (False, True)
    ]
    await stack.settled()
    await told(stack, *answers, own=(PROMPT,) if fault != "500" or role == "prefill" else ())


@pytest.mark.parametrize("status", [400, 500])
async def test_engines_that_quote_what_they_were_asked(
    stack: Stack, told: Told, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """As a validation error of vLLM does; a client is told of its own request, the log is not."""

    async def quote(_: FakeEngine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        said = {"message": f"wrong: {body}", "type": "Bad Request", "param": None, "code": status}
        return web.json_response({"error": said}, status=status)

    monkeypatch.setattr(FakeEngine, "_answer", quote)
    answers = await everything(stack)
    await stack.settled()
    await told(stack, *answers, own=(PROMPT,))


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_worker_that_is_killed(stack: Stack, told: Told, role: str) -> None:
    engine: FakeEngine = getattr(stack, role)
    await engine.stop()
    answers = await everything(stack)
    await stack.settled()
    assert {answer.status_code for answer in answers} == ({200} if role == "prefill" else {502})
    await told(stack, *answers, own=(PROMPT,) if role == "prefill" else ())


async def test_a_defect_with_its_traceback(stack: Stack, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(body: Any, *_: Any) -> None:
        raise RuntimeError(f"with {len(body)} fields")

    for name in ("prefill_body", "decode_body"):
        monkeypatch.setattr(handoff, name, broken)
    answers = await everything(stack)
    failed = [answer for answer in answers if answer.status_code == 500]
    assert len(failed) > 15
    written = await told(stack, *failed)
    assert "Traceback" in written
    assert "RuntimeError: with 4 fields" in written
