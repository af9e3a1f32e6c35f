"""Every route that a real engine can have, and which of them a client of the gateway reaches."""

from __future__ import annotations

import base64
import json
import math
import socket
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from hyperpd_runtime.gateway.apis import APIS
from hyperpd_runtime.gateway.passed import ADAPTERS, PASSED
from tests.real.fleet import Fleet
from tests.real.prompts import prompt
from tests.real.test_shapes import ENGINE, recipe, running

pytestmark = pytest.mark.real
# With development mode, profiling, adapters at run time and every task: more than any engine of ours has.
_ALL_ROUTES = """
import json, os
os.environ.update(VLLM_SERVER_DEV_MODE="1", VLLM_ALLOW_RUNTIME_LORA_UPDATING="1")
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
flags = ["--enable-scale-out", "--enable-tokenizer-info-endpoint", "--enable-fault-tolerance"]
args = make_arg_parser(FlexibleArgumentParser()).parse_args(flags)
app = build_app(args, supported_tasks=("generate", "embed", "classify", "score", "render"))
def walk(routes, prefix=""):
    for route in routes:
        if hasattr(route, "methods"):
            yield from ((method, prefix + route.path) for method in route.methods or ())
        elif hasattr(route, "routes"):
            yield from walk(route.routes, prefix + getattr(route, "path", ""))
found = set(walk(app.routes))
assert {path for _, path in found} >= {*app.openapi()["paths"], "/openapi.json"}
print("ROUTES", json.dumps(sorted(found)))
"""
_OURS = {("GET", path) for path in ("/ping", "/health", "/v1/models")} | {
    *(("HEAD", path) for path in ("/ping", "/health", "/v1/models")),
    *(("POST", path) for path in ("/invocations", *PASSED, *(api.path for api in APIS))),
}


# Other ways to write a path. What a proxy or a framework makes of them differs, and so did the holes.
_WRITTEN = (
    *("/{}", "//{}", "/./{}", "/ping/../{}", "/v1/completions/../../{}", "/v1/models/%2e%2e/%2e%2e/{}", "/%2e/{}"),
    *("/v1/completions%2f..%2f..%2f{}", "/{}/", "/{};x=1", "/{}?x=1", "/{}%00", "/{}%20", "/{}.json", "/\\{}"),
    *("http://127.0.0.1:8100/{}", "http://localhost/{}", "/http://127.0.0.1:8100/{}", "/invocations/{}", "*/{}"),
    *("/v1/{}", "/%5c{}", "/{}%3f", "/{}%23", "/ping;/../{}", "/..;/{}"),
)


@pytest.fixture(scope="module")
def routes() -> list[tuple[str, str]]:
    """Method and path of all that an engine can have."""
    ran = subprocess.run([sys.executable, "-c", _ALL_ROUTES], capture_output=True, text=True, check=False)
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("ROUTES ")] or [ran.stderr[-2000:]]
    found = [(str(method), str(path)) for method, path in json.loads(line.removeprefix("ROUTES "))]
    assert len(found) > 60
    return found


def test_a_client_reaches_what_is_listed_and_nothing_else(
    pd: Fleet, http: httpx.Client, routes: list[tuple[str, str]]
) -> None:
    asked = [
        *("/sleep", "/collective_rpc", "/reset_prefix_cache", "/metrics", "/v1/load_lora_adapter"),
        *("/v1/responses/{response_id}", "/v1/completions/render", "/inference/v1/generate", "/tokenizer_info"),
    ]
    assert {path for _, path in routes} >= {*asked}
    decode = pd.worker("decode-0")
    served = pd.metric(decode, "vllm:request_success_total")
    reached, refused = set(), {}
    for method, path in routes:
        answer = http.request(method, pd.url + path.replace("{", "").replace("}", ""), json={})
        if answer.status_code in (404, 405):
            refused[method, path] = answer.status_code
        elif path in ADAPTERS or path.startswith("/adapters/"):
            assert answer.json()["error"]["code"] == "adapters_are_fixed"
        else:
            reached.add((method, path))
    print(f"\n{len(routes)} routes of the engine: {len(reached)} reached, {len(refused)} not there")
    assert reached <= _OURS
    assert reached >= {("POST", api.path) for api in APIS} | {("POST", "/tokenize"), ("POST", "/detokenize")}
    assert pd.metric(decode, "vllm:request_success_total") == served


def test_no_way_of_writing_a_path_reaches_more(pd: Fleet, http: httpx.Client, routes: list[tuple[str, str]]) -> None:
    paths = {(method, path) for method, path in routes if (method, path) not in _OURS and path not in ADAPTERS}
    paths |= {(method, path.upper()) for method, path in _OURS}
    before = {name: asked(http, pd.worker(name)) for name in ("prefill-0", "decode-0")}
    statuses: Counter[int] = Counter()
    for method, path in sorted(paths):
        for way in _WRITTEN:
            target = way.format(path.removeprefix("/").replace("{", "").replace("}", ""))
            status, said = send(pd.url, method, target)
            statuses[status] += 1
            assert status in (400, 403, 404, 405, 501), (method, target, said)
            assert b"vllm" not in said, (method, target, said)
    assert {name: asked(http, pd.worker(name)) for name in before} == before
    print(f"\n{statuses.total()} requests to paths written otherwise: {dict(statuses)}")


def send(url: str, method: str, target: str) -> tuple[int, bytes]:
    """Status and text of an answer to a request whose target is sent as it is."""
    at = httpx.URL(url)
    head = f"{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    with socket.create_connection((at.host, at.port), timeout=60) as connection:
        connection.sendall(f"{head}content-length: 2\r\n\r\n{{}}".encode())
        said = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    return int(said.split(b" ", 2)[1]), said


def asked(http: httpx.Client, worker: str) -> list[str]:
    """What an engine was asked over HTTP, as it counts by itself, without what the gateway looks at again and again."""
    lines = http.get(f"{worker}/metrics").text.splitlines()
    return [line for line in lines if line.startswith("http_requests_total{")]


def test_what_passes_is_answered_by_a_worker(pd: Fleet, aggregated: Fleet, http: httpx.Client) -> None:
    theirs = aggregated.worker("aggregated-0")
    for path, body in (
        ("/tokenize", {"prompt": "héllo"}),
        ("/tokenize", {"messages": [{"role": "user", "content": "hello"}]}),
        ("/detokenize", {"tokens": [104, 105]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "hello"}]}),
    ):
        body = {"model": "tiny-llama", **body}
        answer = http.post(pd.url + path, json=body)
        assert (answer.status_code, answer.json()) == (200, http.post(theirs + path, json=body).json())
    # This model makes no embeddings: the engine has no such route.
    assert http.post(f"{pd.url}/v1/embeddings", json={"input": "x"}).status_code == 404


def test_embeddings_of_a_model_that_makes_them(tmp_path: Path, http: httpx.Client) -> None:
    """Through the gateway as from the engine; what such a model does not do there is none of."""
    file = recipe(tmp_path, "embedding", "tiny-llama", aggregated={"engine": {**ENGINE, "runner": "pooling"}})
    with running(file, tmp_path / "fleet", 14000) as fleet:
        texts = [prompt(tokens, tokens) for tokens in (20, 300, 900)]
        worker = fleet.worker("aggregated-0")
        asked = {"model": "tiny-llama", "input": texts}
        ours, theirs = (http.post(f"{url}/v1/embeddings", json=asked).json() for url in (fleet.url, worker))
        assert (ours["usage"], ours["usage"]["prompt_tokens"]) == (theirs["usage"], 20 + 300 + 900)
        vectors = [entry["embedding"] for entry in ours["data"]]
        assert [len(vector) for vector in vectors] == [256] * 3
        for vector, right in zip(vectors, theirs["data"], strict=True):
            assert vector == pytest.approx(right["embedding"], abs=1e-4)
            assert math.hypot(*vector) == pytest.approx(1, abs=1e-4)
        assert abs(_cosine(vectors[0], vectors[1])) < 0.9  # what is asked for matters
        packed = http.post(f"{fleet.url}/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()["data"]
        assert struct.unpack("<256f", base64.b64decode(packed[2]["embedding"])) == pytest.approx(vectors[2], abs=1e-4)

        score = http.post(f"{fleet.url}/v1/score", json={"queries": texts[0], "documents": texts[1:]}).json()["data"]
        right_scores = [_cosine(vectors[0], vector) for vector in vectors[1:]]
        assert [entry["score"] for entry in score] == pytest.approx(right_scores, abs=1e-3)
        ranked = http.post(f"{fleet.url}/v1/rerank", json={"query": texts[0], "documents": texts}).json()["results"]
        assert ranked[0]["index"] == 0
        assert ranked[0]["relevance_score"] == pytest.approx(1, abs=1e-3)

        assert http.post(f"{fleet.url}/v1/completions", json={"prompt": "x", "max_tokens": 2}).status_code == 404


def _cosine(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
