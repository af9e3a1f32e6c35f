"""TLS from the client to real engines: KV moves, the command line is answered, Secrets that are replaced are shown."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.container.certificates import Authority
from tests.real.fleet import Fleet, until
from tests.real.prompts import complete, prompt

pytestmark = [pytest.mark.real, pytest.mark.nightly]
HERE = "127.0.0.1"
INVOKE = "from hyperpd.cli.main import main; main()"
FROM_PREFILL = {"source": "external_kv_transfer"}


class Secret:
    """A mounted Secret, as the kubelet has it: links to a folder that is replaced as a whole."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        self._folder, self._authority, self._number = folder, authority, 0
        folder.mkdir()
        for file in (self.cert, self.key):
            file.symlink_to(Path("..data") / file.name)
        self.replace()

    def replace(self) -> None:
        """A certificate for HERE, instead of the one before."""
        self._number += 1
        version = self._folder / f"..{self._number}"
        version.mkdir()
        self._authority.issue(HERE, version / "tls.crt")
        (self._folder / "..new").symlink_to(version.name)
        os.rename(self._folder / "..new", self._folder / "..data")

    def settings(self) -> list[str]:
        return [f"--tls-cert-file={self.cert}", f"--tls-key-file={self.key}"]

    def is_shown(self, url: str) -> bool:
        at = urlsplit(url)
        return ssl.get_server_certificate((HERE, at.port or 0)) == self.cert.read_text()


def test_from_the_client_to_the_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    secret = Secret(tmp_path / "secret", authority)
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(httpx.Client(timeout=120))
        fleets = {}
        for number, role in enumerate(("prefill", "decode")):
            started = Fleet("tiny-cpu-1p1d", tmp_path / role, 5200 + number, "--role", role, *secret.settings())
            stack.callback(started.stop)
            fleets[role] = started
        urls = {role: str(fleet.wait().state()["workers"][0]["url"]) for role, fleet in fleets.items()}
        assert all(url.startswith("https://") for url in urls.values())
        sources = [f"--{role}={url}" for role, url in urls.items()]
        believed = [*secret.settings(), f"--workers-ca-file={authority.file}"]
        gateway = Fleet("tiny-cpu-1p1d", tmp_path / "gateway", 5202, "--role", "gateway", *sources, *believed)
        stack.callback(gateway.stop)
        assert gateway.wait().url.startswith("https://")

        before = fleets["decode"].metric(urls["decode"], "vllm:prompt_tokens_by_source_total", FROM_PREFILL)
        assert complete(http, gateway.url, prompt(500, 1))["choices"][0]["text"]
        read = fleets["decode"].metric(urls["decode"], "vllm:prompt_tokens_by_source_total", FROM_PREFILL) - before
        assert read == 500
        for url in (gateway.url, urls["decode"]):
            with pytest.raises(httpx.RemoteProtocolError):
                http.get(url.replace("https", "http") + "/health")

        command = [sys.executable, "-c", INVOKE, "invoke", "--url", gateway.url, "Once upon a time"]
        answered = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (answered.returncode, bool(answered.stdout)) == (0, True), answered.stderr
        stranger = {key: value for key, value in os.environ.items() if key != "SSL_CERT_FILE"}
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, env=stranger)
        assert refused.returncode != 0
        assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr

        admins = [f"https://{HERE}:{(urlsplit(url).port or 0) + 200}" for url in urls.values()]
        for _ in range(2):  # an engine that looks at links alone would take the first
            secret.replace()
            until(
                lambda: all(map(secret.is_shown, [*urls.values(), *admins, gateway.url, gateway.state()["admin_url"]]))
            )
            assert [http.get(f"{admin}/ready").json() for admin in admins] == [{"state": "ready"}] * 2
        assert complete(http, gateway.url, prompt(500, 2))["choices"][0]["text"]
        assert "healthy=False" not in gateway.log().partition("event=gateway_ready")[2]
