"""Every role in a container: read-only root, no capability but IPC_LOCK, no root, and a clean end."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from hyperpd import __version__
from hyperpd.recipe import load
from tests.image.tools import Container, Tools
from tests.real.prompts import complete, prompt

pytestmark = pytest.mark.image

RECIPE = "tiny-cpu-1p1d"
GRACE_S = load(RECIPE).recipe.drain_s + 5
IPC_LOCK = 1 << 14
Start = Callable[..., Container]


def api(offset: int) -> str:
    return f"http://127.0.0.1:{8080 + offset}"


def served(url: str, offset: int, mode: str = "pd") -> bool:
    """One completion, and whether it was served in `mode`: pd went through prefill and decode."""
    with httpx.Client(timeout=120) as http:
        assert complete(http, url, prompt(300, 1))["choices"][0]["text"]
        metrics = http.get(f"http://127.0.0.1:{8081 + offset}/metrics").text
    counted = [line for line in metrics.splitlines() if line.startswith("hyperpd_requests_total{")]
    return len(counted) == 1 and f'mode="{mode}"' in counted[0] and 'outcome="ok"' in counted[0]


def test_gateway_alone_says_why_it_is_not_ready(start: Start) -> None:
    nowhere = ("--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:2")
    gateway = start(
        *("gateway-alone", "serve", "--role", "gateway", "--recipe", RECIPE, "--port-offset", "7000", *nowhere),
        engine=False,
    )
    answer = gateway.answer(api(7000) + "/ping", 503)
    assert "prefill-0" in answer.json()["reason"]

    first = gateway.first_process()
    status = dict(line.split(":\t", 1) for line in (first / "status").read_text().splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {"10001"}
    assert int(status["CapBnd"], 16) | IPC_LOCK == IPC_LOCK
    assert (first / "cmdline").read_bytes().startswith(b"python3\0-m\0hyperpd_runtime\0--role\0")
    assert gateway.stop(GRACE_S) == 0


def test_a_node_prefills_and_decodes(start: Start) -> None:
    node = start("node", "--role", "node", "--recipe", RECIPE, "--port-offset", "7000")
    node.answer(api(7000) + "/ping", 200)
    assert served(api(7000), 7000)
    assert node.stop(GRACE_S) == 0


def test_an_aggregated_worker_has_its_gateway(start: Start) -> None:
    argv = ("--role", "aggregated", "--recipe", "tiny-cpu-aggregated", "--port-offset", "7000")
    aggregated = start("aggregated", *argv)
    aggregated.answer(api(7000) + "/ping", 200)
    assert served(api(7000), 7000, mode="aggregated")
    assert aggregated.stop(GRACE_S) == 0


def test_prefill_decode_and_gateway_in_containers_of_their_own(start: Start) -> None:
    workers = {
        role: start(role, "--role", role, "--recipe", RECIPE, "--port-offset", str(offset))
        for role, offset in (("prefill", 7100), ("decode", 7200))
    }
    urls = {"prefill": "http://127.0.0.1:15200", "decode": "http://127.0.0.1:15300"}
    for role, url in urls.items():
        workers[role].answer(url + "/health", 200)
    told = (word for role, url in urls.items() for word in (f"--{role}", url))
    gateway = start("gateway", "--role", "gateway", "--recipe", RECIPE, "--port-offset", "7300", *told, engine=False)
    gateway.answer(api(7300) + "/ping", 200)
    assert served(api(7300), 7300)
    assert [each.stop(GRACE_S) for each in (gateway, workers["decode"], workers["prefill"])] == [0, 0, 0]


def test_a_wrong_setting_ends_it_with_its_exit_code(start: Start) -> None:
    refused = start("refused", "--rol", "gateway", engine=False)
    assert refused.process.wait() == 2
    assert "did you mean role?" in refused.log()


def test_only_tmp_can_be_written(tools: Tools, image: str) -> None:
    platform = "-path /proc -prune -o -path /dev -prune -o -path /sys -prune"  # not the image's
    find = f"find / {platform} -o -writable -not -type l -print 2>/dev/null; id --user"
    assert tools.shell(image, "sh", "-c", find).split() == ["/tmp", "10001"]


def test_no_private_key_is_inside(tools: Tools, image: str) -> None:
    code = (
        "import pathlib, json\n"
        "def key(p):\n"
        "    return p.name.startswith('ssh_host_') or b'PRIVATE KEY' in p.open('rb').read(100)\n"
        "files = [p for top in ('etc', 'root', 'home', 'opt', 'usr', 'var', 'tmp', 'srv', 'src')\n"
        "         for p in pathlib.Path('/', top).rglob('*') if p.is_file() and not p.is_symlink()]\n"
        "print(json.dumps([len(files), [str(p) for p in files if key(p)]]))"
    )
    count, keys = json.loads(tools.shell(image, "python3", "-c", code, user="0"))  # root, to read all
    assert count > 5000
    assert keys == []


def test_labels_and_settings(tools: Tools, image: str) -> None:
    config = tools.inspect(image)["Config"]
    standard = "org.opencontainers.image"
    labels = {key: value for key, value in config["Labels"].items() if key.startswith(("hyperpd.", standard))}
    assert labels == {
        f"{standard}.title": "hyperpd",
        f"{standard}.licenses": "Apache-2.0",
        f"{standard}.version": __version__,
        f"{standard}.revision": "abc",
        f"{standard}.source": "here",
        "hyperpd.vllm": "none",
        "hyperpd.nixl": "none",
        "hyperpd.efa": "none",
        "hyperpd.recipe-version": "1",
    }
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/usr/local/bin/hyperpd-entrypoint"]
    assert "STANDARD_AUTO_INSTALL_REQ=false" in config["Env"]
    assert "No broken requirements found" in tools.shell(image, "python3", "-m", "pip", "check")
