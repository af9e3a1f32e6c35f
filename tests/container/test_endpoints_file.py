"""The endpoints file: who writes it, who follows it, and what is wrong with one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from hyperpd.environment import Environment
from hyperpd.placement import Placement
from hyperpd_runtime import endpoints
from hyperpd_runtime.gateway import discovery
from hyperpd_runtime.gateway.discovery import Discovery, Endpoint, File, Sources
from hyperpd_runtime.gateway.server import Gateway
from tests.container.stack import counted, free_port, tiny, until
from tests.container.test_discovery import NOWHERE, Told, gateway_settings
from tests.fakes.engine import FakeEngine
from tests.fakes.leases import Leases

PREFILL = Endpoint("prefill", "prefill-0", "http://10.0.0.1:8100")
DECODE = Endpoint("decode", "decode-0", "http://10.0.0.2:8101")
ENTRY = {"name": "a", "address": "10.0.0.1", "port": "8100", "labels": {"llm-d.ai/role": "decode"}}


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    workers = [PREFILL, DECODE, Endpoint("aggregated", "aggregated-0", "http://[fd00::7]:8102")]
    endpoints.replace(path, workers)
    assert discovery.endpoints(path.read_bytes()) == workers
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_it_has_the_fields_of_llm_d() -> None:
    """name, address, port as a text, labels; of P/D the label llm-d.ai/role."""
    assert endpoints.document([PREFILL]) == {
        "endpoints": [
            {"name": "prefill-0", "address": "10.0.0.1", "port": "8100", "labels": {"llm-d.ai/role": "prefill"}}
        ]
    }


def test_a_gateway_is_told_of_a_file() -> None:
    told = discovery.sources(gateway_settings(prefill="file:///fsx/e.json", decode="file:///fsx/e.json"), NOWHERE)
    assert told.followed == (File("prefill", Path("/fsx/e.json")), File("decode", Path("/fsx/e.json")))
    assert told.roles == {"prefill", "decode"}


@pytest.mark.parametrize("source", ["file://fsx/e.json", "file:e.json", "file://"])
def test_files_that_are_none(source: str) -> None:
    with pytest.raises(ValueError, match=r"or file:///shared/endpoints\.json"):
        gateway_settings(prefill=source)


WRONG: list[tuple[Any, str]] = [
    ("{", "not JSON: "),
    ([], "no list `endpoints`"),
    ({"endpoints": {}}, "no list `endpoints`"),
    ({"endpoints": [1]}, "endpoints.0: no mapping with labels"),
    ({"endpoints": [ENTRY | {"labels": {}}]}, "endpoints.0.labels: llm-d.ai/role is None, not one of prefill, "),
    ({"endpoints": [ENTRY | {"name": ""}]}, "endpoints.0.name: missing"),
    ({"endpoints": [ENTRY | {"address": "node-1"}]}, "endpoints.0: 'node-1' does not appear to be an IPv4 or IPv6"),
    ({"endpoints": [ENTRY | {"port": "http"}]}, "endpoints.0: invalid literal"),
    ({"endpoints": [ENTRY | {"port": "0"}]}, "endpoints.0.port: 0 is none"),
    ({"endpoints": [ENTRY, ENTRY]}, "the name of more than one worker: a"),
    ({"endpoints": [ENTRY, ENTRY | {"name": "b"}]}, "the url of more than one worker: http://10.0.0.1:8100"),
]


@pytest.mark.parametrize(("content", "why"), WRONG)
async def test_a_bad_file_keeps_the_workers_and_is_seen(
    content: Any, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, told = tmp_path / "e.json", Told()
    source = File("decode", path)
    found = Discovery(Sources((), (source,)), told)
    await found.look(source)
    assert told.unresolved == {str(source): "No such file or directory"}
    endpoints.replace(path, [PREFILL, DECODE])
    await found.look(source)
    assert (told.names, told.unresolved) == (["decode-0"], {})
    assert counted("hyperpd_resolved_workers", source=str(source)) == 1
    failures = counted("hyperpd_resolution_failures_total", source=str(source))
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    for _ in range(2):
        await found.look(source)
    assert told.names == ["decode-0"]
    assert why in told.unresolved[str(source)]
    assert counted("hyperpd_resolution_failures_total", source=str(source)) == failures + 2
    assert len([line for line in caplog.messages if "event=unresolved" in line and "keeps_workers=1" in line]) == 1
    endpoints.replace(path, [])
    await found.look(source)
    assert (told.names, told.unresolved) == ([], {})  # an empty list is no failure


@pytest.mark.parametrize("mode", [0o602, 0o620])
async def test_a_file_that_others_may_write_is_not_believed(mode: int, tmp_path: Path) -> None:
    path, told = tmp_path / "e.json", Told()
    endpoints.replace(path, [DECODE])
    path.chmod(mode)
    source = File("decode", path)
    await Discovery(Sources((), (source,)), told).look(source)
    assert "others may write to it" in told.unresolved[str(source)]
    path.chmod(0o600)
    path.write_bytes(b" " * ((1 << 20) + 1))
    await Discovery(Sources((), (source,)), told).look(source)
    assert told.unresolved[str(source)] == "larger than 1048576 bytes"


async def test_a_gateway_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From no workers to two, to others, to none."""
    monkeypatch.setattr(discovery, "_READ_EVERY_S", 0.01)
    leases = Leases()
    engines = [FakeEngine(leases) for _ in range(4)]
    for engine in engines:
        await engine.start("127.0.0.1", 0)
    path = tmp_path / "endpoints.json"

    def write(*chosen: int) -> None:
        roles = ("prefill", "decode", "prefill", "decode")
        endpoints.replace(
            path,
            [
                Endpoint(roles[n], f"{roles[n]}-{n // 2}", f"http://127.0.0.1:{engines[n].port}")  # type: ignore[arg-type]
                for n in chosen
            ],
        )

    placement = Placement((), free_port(), free_port())
    sources = discovery.sources(
        Environment(role="gateway", recipe="r", prefill=f"file://{path}", decode=f"file://{path}"), placement
    )
    gateway = Gateway(tiny(), sources, "127.0.0.1", placement, lambda: None)
    await gateway.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{placement.api_port}") as http:
            ping = await http.get("/ping")
            assert (ping.status_code, "No such file or directory" in ping.text) == (503, True)
            for pair in ((0, 1), (2, 3)):
                write(*pair)
                await until(
                    lambda pair=pair: any(
                        p.proven and p.decode.url.endswith(str(engines[pair[1]].port)) for p in gateway.pool.pairs
                    )
                )
                answer = await http.post("/v1/completions", json={"prompt": "hello"})
                assert answer.json()["choices"][0]["text"] == "after hello"
            write()
            await until(lambda: not gateway.pool.members)
            assert (await http.post("/v1/completions", json={"prompt": "hello"})).status_code == 503
    finally:
        await gateway.stop()
        for engine in engines:
            await engine.stop()


def fleet(folder: Path, name: str, phase: str = "ready", url: str = "http://10.0.0.1:8100") -> None:
    """A worker's folder, as node.py writes it."""
    (folder / name).mkdir(exist_ok=True)
    worker = {"name": name, "role": name.split("-")[0], "state": phase, "url": url}
    (folder / name / "fleet.json").write_text(json.dumps({"phase": phase, "workers": [worker]}))


def test_workers_announce_themselves(tmp_path: Path) -> None:
    fleet(tmp_path, "prefill-0")
    fleet(tmp_path, "decode-0", url="http://10.0.0.2:8101")
    fleet(tmp_path, "decode-0.1", url="http://10.0.0.3:8101")  # its second machine: no API
    for number, phase in enumerate(("starting", "stopping", "stopped", "failed"), 1):
        fleet(tmp_path, f"decode-{number}", phase)
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "fleet.json").write_text(json.dumps({"phase": "ready", "workers": []}))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "fleet.json").write_text('{"phase": "re')
    assert endpoints.announced(tmp_path) == [DECODE, PREFILL]


def test_the_file_is_true_until_its_writer_ends(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "hyperpd_runtime.endpoints", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "event=endpoints workers=none\n"
        fleet(tmp_path, "prefill-0")
        assert process.stdout.readline() == "event=endpoints workers=prefill-0\n"
        assert discovery.endpoints(path.read_bytes()) == [PREFILL]
        (tmp_path / "prefill-0" / "fleet.json").unlink()  # as a job's script does with one that was killed
        assert process.stdout.readline() == "event=endpoints workers=none\n"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()
    assert not path.exists()


def test_a_folder_that_is_none() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "hyperpd_runtime.endpoints", "/nowhere"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2
    assert "give one argument, the folder that has a folder for each worker" in ran.stderr


async def test_a_folder_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is read in a thread: the gateway answers meanwhile."""
    path = tmp_path / "e.json"
    os.mkfifo(path)  # opening it waits for a writer
    source, told = File("decode", path), Told()
    looking = asyncio.create_task(Discovery(Sources((), (source,)), told).look(source))
    await asyncio.sleep(0)
    assert not looking.done()
    path.open("w").close()
    await asyncio.wait_for(looking, 20)
    assert "not JSON" in told.unresolved[str(source)]
