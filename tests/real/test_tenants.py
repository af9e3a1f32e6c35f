"""Prefix caches of real engines, seen by two tenants: none finds what the other has asked."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from hyperpd.recipe import load
from tests.real.fleet import Fleet
from tests.real.prompts import prompt

pytestmark = pytest.mark.real
TENANTS = {"a": "sk-a-0123456789", "b": "sk-b-0123456789"}
LENGTH = 700  # tokens: five blocks and a rest
BLOCK = 128


def body(path: str, text: str) -> dict[str, Any]:
    asked: dict[str, Any] = {"max_output_tokens": 4} if path == "/v1/responses" else {"max_tokens": 4}
    if path == "/v1/completions":
        return asked | {"prompt": text}
    return asked | ({"input": text} if path == "/v1/responses" else {"messages": [{"role": "user", "content": text}]})


def cached(answer: httpx.Response) -> int:
    """Tokens of the prompt that the answering engine, or prefill, had in its prefix cache."""
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return int(usage.get("cache_read_input_tokens") or details.get("cached_tokens") or 0)


@pytest.fixture(scope="module", params=[True, False], ids=["apart", "shared"])
def gateway(
    request: pytest.FixtureRequest, fleets: tuple[Fleet, Fleet], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, bool]]:
    """A gateway of its own before the session's workers, which two tenants have keys of."""
    folder = tmp_path_factory.mktemp("tenants")
    entries = [
        {
            "name": name,
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
            "scope": "operator",
            "concurrent_requests": None,
        }
        for name, key in TENANTS.items()
    ]
    (folder / "keys.json").write_text(json.dumps(entries))
    document = yaml.safe_load(load("tiny-cpu-1p1d").path.read_text())
    document["gateway"] = {"auth": "keys", "isolate_prefix_cache": request.param}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    sources = [word for role in ("prefill", "decode") for word in (f"--{role}", fleets[0].worker(f"{role}-0"))]
    keys = ("--keys-file", str(folder / "keys.json"))
    started = Fleet(str(folder / "recipe.yaml"), folder / "state", 15000, "--role", "gateway", *sources, *keys)
    try:
        yield started.wait().url, request.param
    finally:
        assert started.stop() == 0


@pytest.mark.parametrize("mode", ["pd", "aggregated"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_tenant_finds_its_own_prompts_alone(
    gateway: tuple[str, bool], http: httpx.Client, path: str, mode: str
) -> None:
    url, apart = gateway
    text = prompt(LENGTH, seed=zlib.crc32(f"{path} {mode} {apart}".encode()))
    found, texts = [], set()
    for tenant in ("a", "b", "a", "b"):
        headers = {"authorization": f"Bearer {TENANTS[tenant]}", "x-hyperpd-mode": mode, "x-hyperpd-explain": "1"}
        answer = http.post(f"{url}{path}", json=body(path, text) | {"temperature": 0}, headers=headers)
        found.append(cached(answer))
        served = answer.headers["x-hyperpd-decision"].rpartition("served=")[2]
        assert served == ("pd" if mode == "pd" else "decode_only")
        texts.add(str(answer.json().get("choices") or answer.json().get("content")) if "responses" not in path else "")
    assert found[0] < BLOCK  # a chat's template has a beginning that others asked for, too
    assert found[2] >= LENGTH // BLOCK * BLOCK
    assert (found[1] < BLOCK) == apart
    assert found[3] >= LENGTH // BLOCK * BLOCK
    assert len(texts) == 1
