"""Deployments whose gateway speaks TLS, behind the API server's stand-in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpd.errors import NotReady
from hyperpd_runtime.tls import Certificate
from tests.container.certificates import Authority
from tests.deploy.stage import NAME, Stage, deployed, stage

SECRET = "tls_secret=tls"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    served = Certificate(*Authority(tmp_path).issue("gateway.hyperpd.svc.cluster.local"))
    with stage(tls=served.context) as found:
        yield found


def test_it_is_asked_and_invoked_by_tls(here: Stage) -> None:
    found = deployed(here, NAME, SECRET)
    assert (len(here.asked), found.url) == (1, "https://gateway.hyperpd.svc.cluster.local:8080")
    assert found.invoke() == (
        "kubectl --namespace hyperpd port-forward service/gateway 8080 &"
        " SSL_CERT_FILE=ca.crt hyperpd invoke --url https://localhost:8080 --chat Hello"
    )


def test_without_the_option_nobody_asks_by_tls(here: Stage) -> None:
    with pytest.raises(NotReady):
        deployed(here, timeout_s=0)
    assert here.asked == []
