"""TLS from a client to the workers: who is believed, who is not, and certificates that are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from hyperpd.engine import launch
from hyperpd.environment import Environment
from hyperpd.errors import NotReady, RecipeError
from hyperpd.placement import Placement, place
from hyperpd_runtime import settings, tls
from hyperpd_runtime.gateway import discovery
from hyperpd_runtime.gateway.discovery import Endpoint, Name, Sources
from hyperpd_runtime.gateway.server import Gateway
from hyperpd_runtime.tls import Certificate
from tests.container.certificates import Authority
from tests.container.stack import counted, free_port, tiny
from tests.fakes.engine import FakeEngine
from tests.fakes.leases import Leases

HERE = "127.0.0.1"
HELLO = {"prompt": "hello", "max_tokens": 4}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def gateway(
    authority: Authority, worker: tuple[str, str], certificate: Certificate | None, certified: str = ""
) -> AsyncIterator[tuple[Gateway, int, int]]:
    """A gateway that believes `authority`, before two engines that show `worker`; its two ports."""
    leases = Leases()
    engines = FakeEngine(leases), FakeEngine(leases)
    for engine in engines:
        await engine.start(tls=Certificate(*worker).context)
    prefill, decode = (engine.url for engine in engines)
    fixed = (Endpoint("prefill", "prefill-0", prefill, certified), Endpoint("decode", "decode-0", decode, certified))
    ports = Placement((), free_port(), free_port())
    started = Gateway(
        *(tiny(), Sources(fixed), HERE, ports, lambda: None),
        certificate=certificate,
        workers_ca_file=str(authority.file),
    )
    await started.start()
    try:
        yield started, ports.api_port, ports.admin_port
    finally:
        await started.stop()
        for engine in engines:
            await engine.stop()


async def test_from_the_client_to_the_workers(authority: Authority) -> None:
    cert = authority.issue(HERE)
    async with gateway(authority, cert, Certificate(*cert)) as (started, api, admin):
        await started.until_ready(20)
        async with httpx.AsyncClient(verify=tls.trusting(str(authority.file))) as http:
            answer = await http.post(f"https://{HERE}:{api}/v1/completions", json=HELLO)
            assert (answer.status_code, len(answer.json()["choices"])) == (200, 1)
            status = (await http.get(f"https://{HERE}:{admin}/status")).json()
            assert (status["certificate"], status["ready"]) == ({"problem": None}, True)
        async with httpx.AsyncClient() as http:
            with pytest.raises(httpx.RemoteProtocolError):  # plain HTTP
                await http.get(f"http://{HERE}:{api}/ping")
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.get(f"https://{HERE}:{api}/ping")


async def test_what_is_no_http_is_refused_by_tls_too(authority: Authority) -> None:
    """And the connection is closed, which TLS knows no half of."""
    cert = authority.issue(HERE)
    async with gateway(authority, cert, Certificate(*cert)) as (_, api, _admin):
        reader, writer = await asyncio.open_connection(HERE, api, ssl=tls.trusting(str(authority.file)))
        writer.write(b"GET /ping HTTP/1.1\nHost: a\n\n")
        said = await asyncio.wait_for(reader.read(), 10)
        assert said.startswith(b"HTTP/1.1 400 ")
        writer.close()


@pytest.mark.parametrize("name", ["another.example", "127.0.0.2"])
async def test_workers_that_show_another_name_are_not_asked(authority: Authority, name: str) -> None:
    async with gateway(authority, authority.issue(name), None) as (started, *_):
        with pytest.raises(NotReady, match="Certificate"):
            await started.until_ready(3)


async def test_workers_of_another_authority_are_not_asked(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    async with gateway(authority, other.issue(HERE), None) as (started, *_):
        with pytest.raises(NotReady, match="Certificate"):
            await started.until_ready(3)


async def test_the_name_behind_which_workers_are_found_is_what_they_show(authority: Authority) -> None:
    name = Name("decode", "decode.pd.svc", 8100, "https")
    assert name.endpoint("10.0.0.1") == Endpoint(
        "decode", "decode-10.0.0.1", "https://10.0.0.1:8100", certified="decode.pd.svc"
    )
    assert name.endpoint("10.0.0.1").admin_url == "https://10.0.0.1:8300"
    async with gateway(authority, authority.issue("pd.svc"), None, certified="pd.svc") as (started, *_):
        await started.until_ready(20)


async def shown(authority: Authority, served: Certificate) -> bytes:
    """The certificate that a new connection is shown."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), HERE, 0, ssl=served.context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(HERE, port, ssl=tls.trusting(str(authority.file)))
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
    assert isinstance(found, bytes)
    return found


async def test_a_certificate_that_is_replaced_is_shown(authority: Authority, tmp_path: Path) -> None:
    where = tmp_path / "tls.crt"
    served = Certificate(*authority.issue(HERE, where))
    first = await shown(authority, served)
    await served.look()
    assert await shown(authority, served) == first
    authority.issue(HERE, where)
    await served.look()
    second = await shown(authority, served)
    assert second != first


async def test_one_that_cannot_be_used_is_not_taken(authority: Authority, tmp_path: Path) -> None:
    where = tmp_path / "tls.crt"
    served = Certificate(*authority.issue(HERE, where))
    first, good = await shown(authority, served), where.read_bytes()
    authority.issue(HERE, tmp_path / "other.crt")
    where.write_bytes((tmp_path / "other.crt").read_bytes())  # and not its key
    await served.look()
    assert "belong together" in served.problem
    assert await shown(authority, served) == first
    where.unlink()
    await served.look()
    assert served.problem == f"{where}: No such file or directory"
    where.write_bytes(good)
    await served.look()
    assert served.problem == ""
    assert await shown(authority, served) == first


@pytest.mark.parametrize("password", [None, b"secret"])
def test_a_pair_that_cannot_be_used_is_said_at_once(authority: Authority, tmp_path: Path, password: bytes) -> None:
    cert, key = authority.issue(HERE, password=password)
    if not password:
        _, key = authority.issue("other.example")
    with pytest.raises(RecipeError, match="tls-cert-file, tls-key-file: no PEM certificate and unencrypted key"):
        Certificate(cert, key)
    with pytest.raises(RecipeError, match=r"gone\.pem: No such file"):
        Certificate(str(tmp_path / "gone.pem"), key)
    with pytest.raises(RecipeError, match=r"workers-ca-file: .* No such file"):
        tls.trusting(str(tmp_path / "gone.pem"))


async def test_a_supervisor_asks_its_own_engine_and_no_other(authority: Authority) -> None:
    """Under an address that its certificate may not name; another of the same authority is not its own."""
    cert, other = authority.issue("decode.pd.svc"), authority.issue(HERE)
    engine = FakeEngine(Leases())
    served = Certificate(*cert)
    await engine.start(tls=served.context)
    own = tls.Itself(cert[0])
    async with httpx.AsyncClient(verify=own.trusted()) as http:
        assert (await http.get(f"{engine.url}/health")).status_code == 200
    authority.issue("decode.pd.svc")  # over the first, which the engine still shows
    async with httpx.AsyncClient(verify=own.trusted()) as http:
        assert (await http.get(f"{engine.url}/health")).status_code == 200
    await served.look()
    async with httpx.AsyncClient(verify=own.trusted()) as http:
        assert (await http.get(f"{engine.url}/health")).status_code == 200
    async with httpx.AsyncClient(verify=tls.Itself(other[0]).trusted()) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{engine.url}/health")
    await engine.stop()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"tls_cert_file": "/a"}, "one of them is missing"),
        ({"tls_key_file": "/a"}, "one of them is missing"),
        ({"prefill": "https://10.0.0.1:8100", "decode": "dns://d:8100"}, "who signed the certificate of https://10"),
        ({"decode": "http://10.0.0.1:8100", "workers_ca_file": "/ca"}, "http://10.0.0.1:8100 would be plain HTTP"),
    ],
)
def test_settings_that_do_not_go_together(told: dict[str, str], said: str) -> None:
    environ = {f"HYPERPD_{name.upper()}": value for name, value in told.items()}
    with pytest.raises(RecipeError, match=said):
        settings.read(["--role", "gateway", "--recipe", "tiny-cpu-1p1d"], environ)


def test_every_source_is_by_tls_with_an_authority() -> None:
    told = Environment(
        role="gateway",
        recipe="tiny-cpu-1p1d",
        prefill="https://10.0.0.1:8100,dns://prefill:8100",
        decode="file:///endpoints.json",
        workers_ca_file="/ca",
    )
    found = discovery.sources(told, Placement((), 1, 2))
    assert [one.url for one in found.fixed] == ["https://10.0.0.1:8100"]
    assert [one.scheme for one in found.followed] == ["https", "https"]


def test_the_engine_is_given_its_certificate() -> None:
    recipe = tiny().recipe
    found = launch(recipe, place(recipe).workers[0], model_path="/m", certificate=("/c", "/k"))
    argv, at = found.argv, found.argv.index("--ssl-certfile")
    assert found.env["WATCHFILES_FORCE_POLLING"] == "1"
    assert argv[at : at + 5] == ("--ssl-certfile", "/c", "--ssl-keyfile", "/k", "--enable-ssl-refresh")


async def test_no_handshake_sees_half_of_a_pair(authority: Authority, tmp_path: Path) -> None:
    """Certificates replaced again and again while clients come."""
    where = tmp_path / "tls.crt"
    served = Certificate(*authority.issue(HERE, where))
    server = await asyncio.start_server(lambda reader, writer: writer.close(), HERE, 0, ssl=served.context)
    port = server.sockets[0].getsockname()[1]
    done = False

    async def come() -> int:
        count = 0
        while not done:
            _, writer = await asyncio.open_connection(HERE, port, ssl=tls.trusting(str(authority.file)))
            writer.close()
            count += 1
        return count

    pairs = [
        [Path(file).read_bytes() for file in authority.issue(HERE, tmp_path / name)] for name in ("a.crt", "b.crt")
    ]
    coming = [asyncio.create_task(come()) for _ in range(4)]
    for number in range(400):
        for file, content in zip((where, where.with_suffix(".key")), pairs[number % 2], strict=True):
            file.write_bytes(content)
        await served.look()
        assert served.problem == ""
    done = True
    assert min(await asyncio.gather(*coming)) > 0
    server.close()
    await server.wait_closed()


async def test_who_signed_its_certificate_is_not_itself(tmp_path: Path) -> None:
    """A chain holds those that signed it: they sign others, too."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("decode.pd.svc")
    chain = tmp_path / "chain.pem"
    chain.write_bytes("# für decode\n".encode("latin-1") + Path(cert).read_bytes() + authority.file.read_bytes())
    own, other = FakeEngine(Leases()), FakeEngine(Leases())
    await own.start(tls=Certificate(str(chain), key).context)
    await other.start(tls=Certificate(*authority.issue(HERE)).context)
    async with httpx.AsyncClient(verify=tls.Itself(str(chain)).trusted()) as http:
        assert (await http.get(f"{own.url}/health")).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{other.url}/health")
    await own.stop()
    await other.stop()


@pytest.mark.parametrize("year", [2049, 2050])  # which certificates write in two ways
async def test_when_it_expires_is_known_and_said_once_a_day(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, year: int
) -> None:
    until, where = datetime.datetime(year, 5, 1, 12, 30, tzinfo=datetime.UTC), tmp_path / "tls.crt"
    now = until - datetime.timedelta(days=15)
    served = Certificate(*authority.issue(HERE, where, until=until), now_s=lambda: now.timestamp())

    async def said(**later: int) -> list[str]:
        nonlocal now
        now += datetime.timedelta(**later)
        caplog.clear()
        await served.look()
        return [line.rpartition(" ")[2] for line in caplog.messages if line.startswith("event=certificate_expires")]

    assert served.left_s == 15 * 86400
    assert await said() == []
    assert await said(days=1, seconds=1) == ["days=14.0"]
    assert await said(hours=23) == []
    assert await said(hours=1) == ["days=13.0"]
    assert await said(days=20) == ["days=-7.0"]
    authority.issue(HERE, where, until=now + datetime.timedelta(days=90))
    assert (await said(), await said()) == ([], [])
    assert round(served.left_s / 86400) == 90


async def test_how_long_a_certificate_lasts_is_a_metric(authority: Authority) -> None:
    cert = authority.issue(HERE)
    certificate = Certificate(*cert, now_s=lambda: 1e9)
    async with gateway(authority, cert, certificate):
        assert counted("hyperpd_certificate_expires_seconds") == certificate.left_s
    async with gateway(authority, cert, None):
        assert math.isnan(counted("hyperpd_certificate_expires_seconds"))
