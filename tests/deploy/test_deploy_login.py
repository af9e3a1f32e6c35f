"""Kubeconfigs that cannot be read, and logins that fail: said in one line, never a traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hyperpd.deploy import connect, logs
from hyperpd.deploy.apply import Api
from hyperpd.errors import CloudError, RecipeError
from tests.deploy.stage import NAME, SETTINGS, Stage, deployed, stage


def _kubeconfig(path: Path, user: dict[str, Any] | None, server: str = "http://127.0.0.1:1") -> Path:
    context = {"cluster": "c"} | ({"user": "u"} if user is not None else {})
    path.write_text(
        json.dumps(
            {
                "current-context": "x",
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "contexts": [{"name": "x", "context": context}],
                "users": [{"name": "u", "user": user}] if user is not None else [],
            }
        )
    )
    return path


def _program(*command: str) -> dict[str, Any]:
    version = "client.authentication.k8s.io/v1beta1"
    return {"exec": {"apiVersion": version, "command": command[0], "args": list(command[1:])}}


@pytest.mark.parametrize(
    ("user", "said"),
    [
        (_program("no-such-aws"), "FileNotFoundError"),
        (_program(sys.executable, "-c", "raise SystemExit('the SSO session has ended')"), "the SSO session has ended"),
        (_program(sys.executable, "-c", "print('no JSON')"), "JSONDecodeError"),
        (_program(sys.executable, "-c", "print('{}')"), "KeyError: 'status'"),
    ],
    ids=["not installed", "ended", "no JSON", "no token"],
)
def test_a_login_that_fails_is_told(user: dict[str, Any], said: str, tmp_path: Path) -> None:
    with connect.kubeconfig(path=_kubeconfig(tmp_path / "config", user)) as api:
        with pytest.raises(CloudError, match=rf"(?s)list Pod: the kubeconfig's login failed: .*{said}") as why:
            api.list("Pod")
        assert (why.value.code, "aws sso login" in str(why.value)) == ("Login", True)
        with pytest.raises(CloudError, match=f"(?s)watch Pod: .*{said}"):
            list(api.watch("Pod", None, "1"))


@pytest.mark.parametrize("text", ["contexts: [\n", "just words", None], ids=["no YAML", "no mapping", "no user"])
def test_a_kubeconfig_that_cannot_be_read_is_told(text: str | None, tmp_path: Path) -> None:
    path = _kubeconfig(tmp_path / "config", None)
    if text:
        path.write_text(text)
    with pytest.raises(RecipeError, match=r"(?s)kubeconfig: 1 problem.*give --kubeconfig and --context"):
        connect.kubeconfig(path=path)


def _pod(here: Stage, name: str = "decode-0") -> None:
    labels = {"app.kubernetes.io/name": "hyperpd", "app.kubernetes.io/component": "decode"}
    meta = {"name": name, "namespace": "hyperpd-engines", "labels": labels}
    spec = {"containers": [{"name": "decode", "image": SETTINGS[0]}]}
    here.store.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def test_a_reader_of_a_log_that_ends_by_surprise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprised(*_: object, **__: object) -> None:
        raise RuntimeError("surprise")

    with stage() as here:
        found = deployed(here, NAME, wait=False)
        _pod(here)
        monkeypatch.setattr(Api, "logs", surprised)
        with pytest.raises(RuntimeError, match="surprise"):
            list(logs.lines(found.api, found.revision, None, follow=True, previous=False, tail=None))
