"""An attacker who forges transfer parameters: at the gateway nothing happens; at a bare engine, all that the network
policy has to keep away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hyperpd_runtime.gateway.apis import APIS, CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.real.fleet import Fleet, alive, descendants, until
from tests.real.prompts import complete, prompt

pytestmark = pytest.mark.real
Params = dict[str, Any]
TOKENS = 600
PORTS = {"prefill": 15000, "decode": 15010}
_ASK = {"do_remote_decode": True, "do_remote_prefill": False}


class Listener:
    """A host of the attacker's, who sees who connects."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.seen = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.seen += 1
                connection.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    opened = Listener()
    yield opened
    opened.close()


def deadly(ticket: Params) -> dict[str, Params]:
    """What the core of a decode engine dies of."""
    (blocks,) = ticket["remote_block_ids"]
    return {
        "no blocks": {**ticket, "remote_block_ids": []},
        "an empty group": {**ticket, "remote_block_ids": [[]]},
        "too few blocks": {**ticket, "remote_block_ids": [blocks[:1]]},
        "blocks without a group": {**ticket, "remote_block_ids": blocks},
        "words as blocks": {**ticket, "remote_block_ids": [["x"] * len(blocks)]},
        "a list as engine": {**ticket, "remote_engine_id": [ticket["remote_engine_id"]]},
        "a list as request": {**ticket, "remote_request_id": [ticket["remote_request_id"]]},
    }


def forgeries(ticket: Params, port: int) -> dict[str, Params]:
    """Every one that is known, made of a victim's ticket."""
    (blocks,) = ticket["remote_block_ids"]
    return {
        **deadly(ticket),
        "the victim's ticket": ticket,
        "the victim's blocks": {**ticket, "remote_request_id": "made-up"},
        "blocks by number": {**ticket, "remote_block_ids": [list(range(1, len(blocks) + 1))]},
        "another host": {**ticket, "remote_host": "127.0.0.1", "remote_port": port, "remote_engine_id": "elsewhere"},
        "a word as length, for prefill": {**ticket, **_ASK, "remote_num_tokens": "x"},
        "two pipeline ranks": {**ticket, "pp_size": 2},
        "a lease of one's own": _ASK,
        "blocks out of range": {**ticket, "remote_block_ids": [[10**6] * len(blocks)]},
        "negative blocks": {**ticket, "remote_block_ids": [[-1] * len(blocks)]},
        "another engine": {**ticket, "remote_engine_id": "x"},
        "a word as port": {**ticket, "remote_port": "x"},
        "no ranks": {**ticket, "tp_size": 0},
    }


def bodies(text: str) -> dict[str, Params]:
    """An honest request to each API."""
    said = [{"role": "user", "content": text}]
    asked: dict[str, Params] = {
        COMPLETIONS.path: {"prompt": text, "max_tokens": 4},
        CHAT.path: {"messages": said, "max_tokens": 4},
        RESPONSES.path: {"input": text, "max_output_tokens": 4},
        MESSAGES.path: {"messages": said, "max_tokens": 4},
        "/invocations": {"prompt": text, "max_tokens": 4},
        "/tokenize": {"prompt": text},
        "/v1/embeddings": {"input": text},
    }
    assert asked.keys() > {api.path for api in APIS}
    return asked


def written(body: Params, params: Params) -> dict[str, bytes]:
    """The ways to write forged parameters into a body."""
    plain, forged = json.dumps(body), json.dumps(params)
    key = '"kv_transfer_params"'
    return {
        "plain": f"{plain[:-1]}, {key}: {forged}}}".encode(),
        "escaped": f'{plain[:-1]}, "\\u006bv_transfer\\u005fparams": {forged}}}'.encode(),
        "twice": f"{{{key}: null, {plain[1:-1]}, {key}: {forged}}}".encode(),
        "null last": f"{{{key}: {forged}, {plain[1:-1]}, {key}: null}}".encode(),
        "streamed": f'{plain[:-1]}, "stream": true, {key}: {forged}}}'.encode(),
        "in UTF-16": f"{plain[:-1]}, {key}: {forged}}}".encode("utf-16"),
        "extra arguments": json.dumps({**body, "vllm_xargs": {"kv_transfer_params": forged}}).encode(),
        "encoder's": json.dumps({**body, "ec_transfer_params": params}).encode(),
        "another case": json.dumps({**body, "KV_Transfer_Params": params}).encode(),
    }


def prefilled(http: httpx.Client, prefill: str, text: str) -> Params:
    """A ticket for `text`, as a prefill engine gives it to anybody who reaches it."""
    body = {"model": "tiny-llama", "prompt": text, "max_tokens": 1, "temperature": 0, "kv_transfer_params": _ASK}
    answer = http.post(f"{prefill}/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    ticket: Params = answer.json()["kv_transfer_params"]
    return ticket


def said(answer: Params) -> str:
    return str(answer["choices"][0]["text"])


def pinned(fleet: Fleet, worker: str) -> float:
    return fleet.metric(worker, "vllm:kv_cache_usage_perc")


def test_the_gateway_refuses_every_forgery_and_nothing_happens(
    pd: Fleet, aggregated: Fleet, http: httpx.Client, listener: Listener
) -> None:
    prefill, decode = pd.worker("prefill-0"), pd.worker("decode-0")
    honest = [prompt(TOKENS, 7000 + seed) for seed in range(3)]
    before = [said(complete(http, pd.url, text)) for text in honest]
    until(lambda: not pinned(pd, prefill) and not pinned(pd, decode))
    processes = descendants(pd.process.pid)
    victim = prompt(TOKENS, 7100)
    ticket = prefilled(http, prefill, victim)
    served = [pd.metric(worker, "vllm:request_success_total") for worker in (prefill, decode)]
    refused = 0
    for name, params in forgeries(ticket, listener.port).items():
        for path, body in bodies(honest[0]).items():
            for way, raw in written(body, params).items():
                answer = http.post(pd.url + path, content=raw, headers={"content-type": "application/json"})
                error = answer.json()["error"]
                assert answer.status_code == 400, (name, path, way, answer.text)
                assert error["code"] in ("invalid_field", "duplicate_key", "invalid_encoding"), (way, error)
                refused += 1
    assert [pd.metric(worker, "vllm:request_success_total") for worker in (prefill, decode)] == served
    assert pinned(pd, prefill) > 0  # the victim's lease is as it was, and its blocks are
    taken = complete(http, decode, victim, kv_transfer_params=ticket)
    assert said(taken) == said(complete(http, aggregated.url, victim))
    until(lambda: not pinned(pd, prefill) and not pinned(pd, decode), 60)
    assert [said(complete(http, pd.url, text)) for text in honest] == before
    assert [pid for pid in processes if not alive(pid)] == []
    assert listener.seen == 0
    print(f"\n{refused} requests with forged parameters, each refused with 400")


@pytest.mark.parametrize(
    "name",
    [
        *("x-prefiller-host-port", "x-prefiller-url", "x-gateway-destination-endpoint", "x-data-parallel-rank"),
        *("x-data-parallel-host-port", "x-session-id", "x-worker-instance-id", "x-forwarded-host", "forwarded"),
        *("x-encoder-hosts-ports", "x-request-id", "x-amzn-sagemaker-inference-id"),
    ],
)
def test_no_header_chooses_a_host(pd: Fleet, http: httpx.Client, listener: Listener, name: str) -> None:
    text = prompt(200, 7200)
    right = said(complete(http, pd.url, text))
    body = {"prompt": text, "max_tokens": 16, "temperature": 0}
    given = {name: f"127.0.0.1:{listener.port},http://127.0.0.1:{listener.port}"}
    answer = http.post(f"{pd.url}/v1/completions", json=body, headers=given)
    assert answer.status_code == 400 or said(answer.json()) == right
    assert listener.seen == 0


class Bare:
    """A prefill and a decode engine without a gateway, as an attacker in the same network finds them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._starts = folder, 0
        self.fleets = {role: self._start(role) for role in PORTS}
        for fleet in self.fleets.values():
            fleet.wait()

    def _start(self, role: str) -> Fleet:
        self._starts += 1
        return Fleet("tiny-cpu-1p1d", self._folder / f"{role}-{self._starts}", PORTS[role], "--role", role)

    def url(self, role: str) -> str:
        return self.fleets[role].worker(f"{role}-0")

    def pinned(self, role: str) -> float:
        return pinned(self.fleets[role], self.url(role))

    def dies(self, role: str) -> bool:
        """Whether an engine ends by itself; another is started in its place."""
        died = self.fleets[role].process.wait(60) != 0
        self.fleets[role] = self._start(role).wait()
        return died

    def close(self) -> None:
        for fleet in self.fleets.values():  # without the time that the leases would still be kept for
            for pid in (fleet.process.pid, *descendants(fleet.process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            fleet.process.wait(60)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    engines = Bare(tmp_path_factory.mktemp("bare"))
    yield engines
    engines.close()


def test_a_bare_engine_tells_and_does_all_that_is_forged(bare: Bare, http: httpx.Client, listener: Listener) -> None:
    prefill, decode = bare.url("prefill"), bare.url("decode")
    secret = prompt(TOKENS, 7300)
    right = said(complete(http, prefill, secret))
    victims = prefilled(http, prefill, secret)
    until(lambda: bare.pinned("prefill") > 0)

    # Another's answer, read with the numbers of its blocks and a request id that is made up.
    own = "a" * (TOKENS - 1) + secret[-1]
    forged = {**victims, "remote_request_id": "made-up"}
    assert said(complete(http, decode, own, kv_transfer_params=forged)) == right

    # From then on decode answers the attacker's prompt, whoever asks it, as if it were the victim's.
    honest = said(complete(http, prefill, own))
    assert said(complete(http, decode, own)) != honest
    assert said(complete(http, decode, own, cache_salt="another")) == honest

    # Another's lease, let go of by a request that is refused.
    assert bare.pinned("prefill") > 0
    body = {"model": "nobody's", "prompt": "-", "max_tokens": 1, "kv_transfer_params": victims}
    assert http.post(f"{decode}/v1/completions", json=body).status_code == 404
    until(lambda: bare.pinned("prefill") == 0)  # long before it would have expired

    # A lease of one's own, on either engine.
    for role in PORTS:
        prefilled(http, bare.url(role), prompt(TOKENS, 7400))
        assert bare.pinned(role) > 0

    # A connection to wherever the attacker says.
    elsewhere = {**victims, "remote_host": "127.0.0.1", "remote_port": listener.port, "remote_engine_id": "elsewhere"}
    body = {"model": "tiny-llama", "prompt": prompt(TOKENS, 7500), "max_tokens": 4, "kv_transfer_params": elsewhere}
    assert http.post(f"{decode}/v1/completions", json=body).status_code == 500
    assert listener.seen > 0

    # The end of it.
    written = bare.fleets["decode"].folder
    _kill(http, decode, deadly(victims)["an empty group"])
    assert bare.dies("decode")
    # What it says of its end quotes nobody.
    told = b"".join(file.read_bytes() for file in written.rglob("*") if file.is_file())
    assert b"Traceback" in told
    asked = [text.encode() for text in (secret, own, prompt(TOKENS, 7700))]
    assert not [text for text in asked if text[:40] in told or str(list(text[:40]))[1:-1].encode() in told]


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name", sorted(set(deadly({"remote_block_ids": [[]], "remote_engine_id": "", "remote_request_id": ""})))
)
def test_a_bare_decode_engine_dies_of(bare: Bare, http: httpx.Client, name: str) -> None:
    ticket = prefilled(http, bare.url("prefill"), prompt(TOKENS, 7600))
    _kill(http, bare.url("decode"), deadly(ticket)[name])
    assert bare.dies("decode")


def _kill(http: httpx.Client, url: str, params: Params) -> None:
    body = {"model": "tiny-llama", "prompt": prompt(TOKENS, 7700), "max_tokens": 4, "kv_transfer_params": params}
    with contextlib.suppress(httpx.TransportError):
        assert http.post(f"{url}/v1/completions", json=body).status_code == 500
