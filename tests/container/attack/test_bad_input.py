"""Bad input of every kind that the OpenAPI document lets one think of: the gateway refuses it, and never fails."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hyperpd_runtime.gateway import guard, openapi
from tests.container import stack
from tests.fakes.engine import FakeEngine

_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


class TypedEngine(FakeEngine):
    """As vLLM, which gives every field a type: what cannot be read is refused, and harms nobody."""

    def __init__(self, *leases_and_models: Any) -> None:
        super().__init__(*leases_and_models)
        self.waits_for = object()  # every prompt is as good as any other
        self.pause_s = 0

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        try:
            return await super()._answer(request, body)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return _refused(error)

    async def _tokenize(self, request: web.Request) -> web.Response:
        try:
            return await super()._tokenize(request)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return _refused(error)


def _refused(error: Exception) -> web.Response:
    said = {"message": f"1 validation error: {type(error).__name__}", "type": "Bad Request", "param": None, "code": 400}
    return web.json_response({"error": said}, status=400)


@pytest.mark.parametrize(
    ("phases", "paths", "examples", "limit_s"),
    [
        pytest.param("coverage", "^/v1/(chat/)?completions$|^/tokenize$", 1, 300, id="each field of the main paths"),
        pytest.param("coverage,fuzzing", "^(?!.*adapter)", 500, 3600, id="many", marks=pytest.mark.nightly),
    ],
)
async def test_no_input_makes_the_gateway_fail(
    phases: str, paths: str, examples: int, limit_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, said = tmp_path / "openapi.json", tmp_path / "said"
    document.write_text(json.dumps(openapi.document(stack.tiny())))
    last, read = b"", guard.read

    def noted(raw: bytes, *more: Any) -> dict[str, Any]:
        nonlocal last
        last = raw
        return read(raw, *more)

    monkeypatch.setattr(guard, "read", noted)
    async with stack.running(stack.tiny(), engine=TypedEngine) as gateway:
        with said.open("wb") as out:
            asking = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run", str(document)),
                *("--url", str(gateway.http.base_url), "--checks", _CHECKS, "--max-examples", str(examples)),
                *("--phases", phases, "--mode", "all", "--generation-deterministic"),
                *("--include-path-regex", paths, "--suppress-health-check", "all", "--continue-on-failure"),
                *("--request-timeout", "10"),
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                cwd=tmp_path,
            )
            try:
                async with asyncio.timeout(limit_s):
                    code = await asking.wait()
            except TimeoutError:
                asking.kill()
                await asking.wait()
                pytest.fail(f"not done within {limit_s} s; last body: {last[:2000]!r}\n{_end(said)}")
        assert code == 0, _end(said)
        generated = int(re.findall(r"([\d,]+) generated", said.read_text())[0].replace(",", ""))
        assert generated > 200 + 5 * examples
        assert (await gateway.ask()).status_code == 200
        assert gateway.pool.in_flight == 0


def _end(said: Path) -> str:
    return said.read_text(errors="replace")[-6000:]
