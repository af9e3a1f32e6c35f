"""`hyperpd explain` as a user types it, to the admin ports of real gateways."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from hyperpd.cli.explain import _WITHOUT_COSTS
from hyperpd.routing.choice import Reason
from hyperpd_runtime.gateway import app, keys
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.listen import Listener
from tests.container.stack import free_port, running, tiny
from tests.fakes import wire
from tests.sdk.routing.test_policies import request, router_of

Hyperpd = Callable[..., tuple[int, str, str]]
OPERATOR = "sk-operator-0123456789"


class Admin:
    """A gateway's admin port, and what it knows of its decisions."""

    def __init__(self, held: keys.Keys | None = None, pool: Pool | None = None) -> None:
        pool = pool or Pool(disaggregated=True, routing=Routing(tiny().recipe))
        self.explained = pool.routing.explained
        port = free_port()
        self.listener = Listener(app.admin(pool, tiny(), lambda: None, held), "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"

    def decide(self, request_id: str, decider: str, tokens: int = 9_000, mode: str = "pd", **avoid: Any) -> None:
        """A decision in a fleet of three decode workers, one of which is draining, and one prefill worker."""
        router = router_of(decider=decider, decodes=3, prefills=1)
        router.keep_out("decode", "d1", "draining")
        router.choose(request(tokens), 0.0, avoid=("d2",)).first_token(1.0)
        self.explained.put(request_id, router.choose(request(tokens), 1.0, explain=True, **avoid))
        self.explained.serve(request_id, mode)


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    admin = Admin()
    await admin.listener.start()
    yield admin
    await admin.listener.stop()


async def explain(hyperpd: Hyperpd, *argv: str) -> tuple[int, str, str]:
    """In a thread: the gateway answers in this one."""
    return await asyncio.to_thread(hyperpd, "explain", *argv)


async def test_candidates_scores_and_why(admin: Admin, hyperpd: Hyperpd) -> None:
    admin.decide("r1", "predicted_cost", mode="local")
    code, out, err = await explain(hyperpd, "r1", "--url", admin.url)
    assert (code, err) == (0, "")
    title, head, *rows, why, meaning = out.splitlines()
    assert title.startswith("r1: 9,000 prompt tokens, ")
    assert title.endswith(", served local")
    assert head.split() == ["role", "worker", "cached", "score"]
    cells = [row.split() for row in rows]
    assert [row[:3] for row in cells] == [
        ["decode", "d0", "8,992"],
        ["decode", "d2", "0"],
        ["decode", "d1", "-"],
        ["prefill", "p0", "0"],
    ]
    assert [row[4:] for row in cells] == [["picked"], [], ["draining"], []]
    (decision,) = admin.explained.explain("r1")["decisions"]
    local, remote = f"{decision['local_cost']:.3f}", f"{decision['remote_cost']:.3f}"
    assert why == f"local, d0 prefills itself: predicted cost {local} local, {remote} remote"
    assert "a tenth of the objective, 2,000 ms" in meaning


async def test_a_request_that_was_served(hyperpd: Hyperpd) -> None:
    """By the id that its answer has."""
    async with running(tiny()) as stack:
        answer = await stack.ask(prompt=list(range(300)))
        admin = Admin(pool=stack.pool)
        await admin.listener.start()
        code, out, _ = await explain(hyperpd, answer.headers["x-hyperpd-request-id"], "--url", admin.url)
        await admin.listener.stop()
    title, _, decode, prefill, why = out.splitlines()
    assert (code, title.endswith(", served pd"), "300 prompt tokens" in title) == (0, True, True)
    assert decode.split()[:3] == ["decode", "decode-0", "0"]
    assert prefill.split()[::4] == ["prefill", "picked"]
    assert why == "remote, prefill-0 prefills: the decider sends prompts like this one to a prefill worker"


@pytest.mark.parametrize(
    ("decider", "tokens", "why"),
    [
        ("always", 9_000, "remote, p0 prefills: the decider sends prompts like this one to a prefill worker"),
        ("never", 9_000, "local, d0 prefills itself: the decider never asks for a remote prefill"),
        ("uncached_tokens", 100, "4 tokens to compute are fewer than gateway.threshold_tokens"),
    ],
)
async def test_a_decider_without_costs(admin: Admin, hyperpd: Hyperpd, decider: str, tokens: int, why: str) -> None:
    admin.decide("r1", decider, tokens, avoid=("d2",))
    _, out, _ = await explain(hyperpd, "r1", "--url", admin.url)
    assert why in out.splitlines()[-1]


def test_every_reason_has_words() -> None:
    assert {*get_args(Reason)} == {*_WITHOUT_COSTS, "below_threshold", "cost_local"}


async def test_each_decision_of_a_request_and_json(admin: Admin, hyperpd: Hyperpd) -> None:
    for _ in range(10):
        admin.decide("r1", "always")
    _, out, _ = await explain(hyperpd, "r1", "--url", admin.url)
    assert "r1, decision 2 of 8: " in out
    assert "and 2 more decisions for this request" in out
    _, out, _ = await explain(hyperpd, "r1", "--url", admin.url, "--json")
    assert json.loads(out) == admin.explained.explain("r1")


async def test_gateways_are_asked_until_one_knows(admin: Admin, hyperpd: Hyperpd) -> None:
    other = Admin()
    await other.listener.start()
    other.decide("r1", "always")
    nobody = f"http://127.0.0.1:{free_port()}"
    code, out, _ = await explain(hyperpd, "r1", "--url", nobody, "--url", admin.url, "--url", other.url)
    assert (code, "r1: 9,000" in out) == (0, True)
    await other.listener.stop()
    code, _, err = await explain(hyperpd, "r2", "--url", nobody, "--url", admin.url)
    assert (code, f"{nobody}: " in err, f"{admin.url}: r2: no decision is known" in err) == (5, True, True)


async def test_an_unknown_id_says_what_to_try(admin: Admin, hyperpd: Hyperpd) -> None:
    code, out, err = await explain(hyperpd, "x/../y?", "--url", admin.url)
    assert (code, out) == (5, "")
    code, out, err = await explain(hyperpd, "nosuch", "--url", admin.url)
    assert (code, out) == (5, "")
    for part in ("no decision is known", "x-hyperpd-request-id", "x-hyperpd-explain: 1", "last 1,024 requests"):
        assert part in err


async def test_what_is_no_admin_port(hyperpd: Hyperpd) -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "nonsense"):
        code, _, err = await explain(hyperpd, "r", "--url", url)
        assert (code, f"{url}: " in err, "is it a gateway's admin port" in err) == (5, True, True)


@pytest.mark.parametrize("said", ["{}", '{"decisions": 1}', "[]", "<html>", "\udcff"])
async def test_who_answers_and_is_no_gateway(admin: Admin, hyperpd: Hyperpd, said: str) -> None:
    admin.decide("r", "always")
    with wire.serve(lambda _: wire.Answer(200, {}, said.encode(errors="surrogateescape"))) as url:
        code, _, err = await explain(hyperpd, "r", "--url", url)
        whose = f"{url}: answers with no explanation; is it a gateway's admin port, as hyperpd up shows?"
        assert (code, whose in err) == (5, True), err
        code, out, _ = await explain(hyperpd, "r", "--url", url, "--url", admin.url)
        assert (code, "r: 9,000" in out) == (0, True)


async def test_the_fleet_that_runs_here(
    admin: Admin, hyperpd: Hyperpd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = await explain(hyperpd, "r1")
    assert (code, "no fleet runs on this machine; give --url" in err) == (2, True)
    folder = tmp_path / "state" / "hyperpd" / "tiny"
    folder.mkdir(parents=True)
    state = {"pid": os.getpid(), "phase": "ready", "admin_url": admin.url}
    (folder / "fleet.json").write_text(json.dumps(state))
    monkeypatch.setattr("hyperpd.cli.fleet._is_node", lambda pid: True)
    admin.decide("r1", "always")
    for words in ((), ("--fleet", "tiny")):
        code, out, _ = await explain(hyperpd, "r1", *words)
        assert (code, "r1: 9,000" in out) == (0, True)
    code, _, err = await explain(hyperpd, "r1", "--fleet", "other")
    assert (code, "there run tiny. For other gateways give --url" in err) == (2, True)
    code, _, err = await explain(hyperpd, "r1", "--fleet", "tiny", "--url", admin.url)
    assert (code, "both name gateways; give one of them" in err) == (2, True)


async def test_an_operators_key_is_sent(hyperpd: Hyperpd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from elsewhere the port asks for one."""
    entry = {"name": "o", "sha256": hashlib.sha256(OPERATOR.encode()).hexdigest(), "scope": "operator"}
    (tmp_path / "keys.json").write_text(json.dumps([entry | {"concurrent_requests": None}]))
    monkeypatch.setattr(app, "_from_this_machine", lambda request: False)
    admin = Admin(keys.of(tiny(gateway={"auth": "keys"}).recipe, str(tmp_path / "keys.json")))
    await admin.listener.start()
    admin.decide("r1", "always")
    code, _, err = await explain(hyperpd, "r1", "--url", admin.url)
    assert (code, "--key-file with an operator's key" in err) == (5, True)
    (tmp_path / "key").write_text(OPERATOR)
    code, out, _ = await explain(hyperpd, "r1", "--url", admin.url, "--key-file", str(tmp_path / "key"))
    assert (code, "r1: 9,000" in out) == (0, True)
    await admin.listener.stop()
