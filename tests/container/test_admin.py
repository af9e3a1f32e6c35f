"""The gateway's admin port: who may see and do what, by where the other end of the socket is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from hyperpd_runtime.gateway import app, keys
from hyperpd_runtime.gateway.keys import Keys
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.listen import Listener
from tests.container.stack import free_port, tiny

USER, OPERATOR = "sk-user-0123456789", "sk-operator-0123456789"
HERE, ELSEWHERE = "10.0.0.1", "10.0.0.9"
ROUTES = (("GET", "/metrics"), ("GET", "/status"), ("GET", "/openapi.json"), ("POST", "/drain"))
KEYED = tiny(gateway={"auth": "keys"})


class Admin:
    """The admin app as it is seen from somewhere; how often it was told to drain."""

    def __init__(self, held: Keys | None) -> None:
        self.drained = 0
        self.app = app.admin(
            Pool(disaggregated=True, routing=Routing(tiny().recipe)), KEYED if held else tiny(), self._drain, held
        )

    def _drain(self) -> None:
        self.drained += 1

    def seen_from(self, address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, client=(address, 50000))
        return httpx.AsyncClient(transport=transport, base_url=f"http://{HERE}:8081")


@pytest.fixture
def held(tmp_path: Path) -> Keys:
    entries = [
        {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "scope": name, "concurrent_requests": None}
        for name, key in (("user", USER), ("operator", OPERATOR))
    ]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(entries))
    found = keys.of(KEYED.recipe, str(path))
    assert found
    return found


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "missing_api_key"),
        ({"authorization": "Bearer sk-unknown"}, 401, "invalid_api_key"),
        ({"authorization": f"Bearer {USER}"}, 403, "operators_only"),
        ({"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1"}, 401, None),
        ({"host": "127.0.0.1:8081"}, 401, None),
    ],
)
async def test_from_elsewhere_it_takes_an_operator(
    held: Keys, headers: dict[str, str], status: int, code: str | None
) -> None:
    admin = Admin(held)
    async with admin.seen_from(ELSEWHERE) as http:
        for method, path in ROUTES:
            answer = await http.request(method, path, headers=headers)
            assert answer.status_code == status
            assert code in (None, answer.json()["error"]["code"])
            assert "workers" not in answer.text
    assert admin.drained == 0


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {OPERATOR}"}, {"x-api-key": OPERATOR}])
async def test_an_operator_may(held: Keys, headers: dict[str, str]) -> None:
    """Bearer as Prometheus sends it, x-api-key as it comes through the API server's proxy."""
    admin = Admin(held)
    async with admin.seen_from(ELSEWHERE) as http:
        assert [(await http.request(*route, headers=headers)).status_code for route in ROUTES] == [200, 200, 200, 202]
    assert admin.drained == 1


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", HERE])
async def test_this_machine_needs_no_key(held: Keys, keyed: bool, address: str) -> None:
    """Also by its own address: a batch script drains the gateway that listens on the node's."""
    admin = Admin(held if keyed else None)
    async with admin.seen_from(address) as http:
        assert [(await http.request(*route)).status_code for route in ROUTES] == [200, 200, 200, 202]
    assert admin.drained == 1


@pytest.mark.parametrize(("keyed", "status"), [(True, 401), (False, 403)])
async def test_a_web_page_does_not_drain(held: Keys, keyed: bool, status: int) -> None:
    """One that somebody looks at on this machine may have the browser post anywhere."""
    admin = Admin(held if keyed else None)
    async with admin.seen_from("127.0.0.1") as http:
        answer = await http.post("/drain", headers={"origin": "https://example.com"})
    assert (answer.status_code, admin.drained) == (status, 0)


async def test_without_keys_nobody_elsewhere_drains() -> None:
    admin = Admin(None)
    async with admin.seen_from(ELSEWHERE) as http:
        assert [(await http.request(*route)).status_code for route in ROUTES] == [200, 200, 200, 403]
        refused = await http.post("/drain", headers={"authorization": f"Bearer {OPERATOR}"})
        assert "only from the gateway's own machine, where gateway.auth is none" in refused.text
    assert admin.drained == 0


async def test_every_other_route_is_closed(held: Keys) -> None:
    """Also one that is yet to come."""
    admin = Admin(held)

    @admin.app.get("/new")
    async def new() -> None: ...

    routes = {route.path: route for route in admin.app.routes if isinstance(route, APIRoute)}
    assert routes.keys() >= {path for _, path in ROUTES} | {"/health", "/new"}
    async with admin.seen_from(ELSEWHERE) as http:
        for path, route in routes.items():
            statuses = {(await http.request(method, path)).status_code for method in route.methods}
            assert statuses == {200 if path == "/health" else 401}


async def test_probes_of_a_platform_need_no_key(held: Keys) -> None:
    async with Admin(held).seen_from(ELSEWHERE) as http:
        answer = await http.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_who_asks_is_at_the_other_end_of_the_socket(held: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn would believe X-Forwarded-For: of a proxy on this machine, or of everybody, as a variable has it."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    port = free_port()
    listener = Listener(Admin(held).app, "127.0.0.1", port)
    await listener.start()
    try:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{port}/status", headers={"x-forwarded-for": ELSEWHERE})
            assert answer.status_code == 200
    finally:
        await listener.stop()
