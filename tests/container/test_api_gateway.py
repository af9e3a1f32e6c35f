"""examples/api-gateway: what its page says of headers holds, and both files send what a gateway takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from hyperpd.placement import Ports
from hyperpd.recipe import load
from hyperpd_runtime.gateway.steering import EXPLAIN, MODE
from tests.container.stack import Stack
from tests.container.test_steering import OTHER, USER, bearer, keyed

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "api-gateway"
PAGE = (FOLDER / "README.md").read_text()
VALUES = {"content-type": "application/json", MODE: "pd", EXPLAIN: "1", "authorization": f"Bearer {OTHER}"}


def rows() -> list[tuple[list[str], str]]:
    """The table of headers: names as somebody would send them, and what the page says."""
    lines = re.findall(r"^\| (`.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    return [([name.replace("…", "x") for name in re.findall(r"`(.+?)`", names)], said) for names, said in lines]


async def ask(stack: Stack, name: str) -> int:
    """The status of a request with the front's key, and a client's own header passed on."""
    headers = bearer(USER) | {name: VALUES.get(name, "theirs")}
    if name == "authorization":
        headers |= {"x-api-key": USER}
    return (await stack.ask(headers)).status_code


async def test_the_table_of_headers_holds(tmp_path: Path) -> None:
    expected = {"yes": {200}, "harmless": {200}, "no: replaced": {401}, "no: for operators": {403}, "no: a 400": {400}}
    found = rows()
    assert len(found) == 6
    async with keyed(tmp_path, isolate_prefix_cache=True) as stack:
        for names, said in found:
            (statuses,) = [statuses for begins, statuses in expected.items() if said.startswith(begins)]
            assert {await ask(stack, name) for name in names} == statuses, names


def test_the_recipe_of_the_page_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(gateway:.*?)```", PAGE, re.DOTALL)
    document = load("tiny-cpu-1p1d").recipe.model_dump() | yaml.safe_load(block)
    assert type(load("tiny-cpu-1p1d").recipe).model_validate(document).gateway.isolate_prefix_cache


async def test_litellm_asks_with_a_key_for_each_tenant(tmp_path: Path) -> None:
    document = yaml.safe_load((FOLDER / "litellm.yaml").read_text())
    entries: list[dict[str, Any]] = [entry["litellm_params"] for entry in document["model_list"]]
    assert len({entry["api_key"] for entry in entries}) == len(entries) > 1
    assert all(entry["api_key"].startswith("os.environ/") for entry in entries)
    assert document["general_settings"]["forward_client_headers_to_llm_api"] is False
    async with keyed(tmp_path) as stack:
        for entry, key in zip(entries, (USER, OTHER), strict=True):
            base = urlsplit(entry["api_base"])
            assert base.port == Ports().gateway_api
            body = {"model": entry["model"].removeprefix("hosted_vllm/"), "prompt": "x", "max_tokens": 2}
            answer = await stack.http.post(f"{base.path}/completions", json=body, headers=bearer(key))
            assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages"])
async def test_envoy_lets_nothing_through_that_is_refused(tmp_path: Path, path: str) -> None:
    objects = {one["kind"]: one["spec"] for one in yaml.safe_load_all((FOLDER / "envoy-gateway.yaml").read_text())}
    (rule,) = objects["HTTPRoute"]["rules"]
    removed = set(rule["filters"][0]["requestHeaderModifier"]["remove"])
    assert removed == {"x-api-key", MODE, EXPLAIN}
    assert path.startswith(rule["matches"][0]["path"]["value"])
    assert objects["HTTPRouteFilter"]["credentialInjection"]["overwrite"]  # of the client's JWT
    (provider,) = objects["SecurityPolicy"]["jwt"]["providers"]
    added = {claim["header"]: "someone" for claim in provider["claimToHeaders"]}
    async with keyed(tmp_path) as stack:
        sent = bearer(USER) | added | {"x-forwarded-for": "10.0.0.9", "x-request-id": "theirs"}
        body = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "max_tokens": 2}
        body.pop("prompt" if path == "/v1/messages" else "messages")
        assert (await stack.http.post(path, json=body, headers=sent)).status_code == 200
