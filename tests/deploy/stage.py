"""A cluster to deploy to: the API server's stand-in, its controllers played, the gateway's answer, and faults.

Between client and server there is a gate: it counts requests that change something, and may cut one off before or after
its effect, as a process that is killed does.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from starlette.datastructures import Headers

from hyperpd import recipe
from hyperpd.deploy.apply import Api
from hyperpd.deploy.deployment import Deployment, deploy
from hyperpd.errors import Rejected
from hyperpd_runtime.gateway.keys import Keys
from tests.fakes import kubernetes, wire
from tests.fakes.kubernetes.controllers import Controllers

Object = dict[str, Any]
NAME = "tiny-cpu-1p1d"
SETTINGS = ("image=example.com/hyperpd:1", "platform=eks")
HOME = "hyperpd-engines"
KEY = "sk-alice-0123456789"
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]}


def deployed(here: Stage, what: str | Path = NAME, *settings: str, **given: Any) -> Deployment:
    """What a user's program does."""
    return deploy(what, here.api(), settings=(*SETTINGS, *settings), **given)


def altered(folder: Path) -> Path:
    """The same recipe with another limit: other pods."""
    path = folder / "altered.yaml"
    path.write_bytes(recipe.load(NAME).path.read_bytes().replace(b"max_len_tokens: 2048", b"max_len_tokens: 1024"))
    return path


def with_keys(folder: Path) -> Path:
    """The same recipe with a gateway that asks for a key."""
    path = folder / "keyed.yaml"
    path.write_bytes(recipe.load(NAME).path.read_bytes().replace(b"\ngateway:\n", b"\ngateway:\n  auth: keys\n"))
    return path


def knows_key(folder: Path) -> Keys:
    """What a gateway has that knows KEY alone."""
    path = folder / "keys.json"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    path.write_text(json.dumps([{"name": "a", "sha256": digest, "scope": "user", "concurrent_requests": None}]))
    return Keys(path)


class Killed(BaseException):
    """The process is gone: nobody catches this."""


class Gate(httpx2.BaseTransport):
    """Ends the process, as it were, before the changing request number `at`."""

    def __init__(self, stage: Stage, at: int = 0) -> None:
        self.stage, self.at = stage, at
        self._wire = httpx2.HTTPTransport()
        self.changes: list[str] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.stage.play()
        line = f"{request.method} {request.url.raw_path.decode()}"
        if re.match(kubernetes.WRITES, line) and "dryRun" not in line and "/proxy/" not in line:
            self.changes.append(line)
            if len(self.changes) == self.at:
                raise Killed
        return self._wire.handle_request(request)

    def close(self) -> None:
        self._wire.close()


class Stage:
    """held: names of workloads that never become ready. controllers: play instead, where a test lets them.
    keys: whose keys the gateway asks for."""

    def __init__(self, store: kubernetes.Store, url: str) -> None:
        self.store, self.url = store, url
        self.held: set[str] = set()
        self.controllers: Controllers | None = None
        self.keys: Keys | None = None
        self.asked: list[tuple[str, Object]] = []
        self.answers: list[tuple[int, Object]] = [(200, ANSWER)]
        self.gate = Gate(self)
        self._apis: list[Api] = []

    def api(self, at: int = 0) -> Api:
        """A new client behind a new gate."""
        self.gate = Gate(self, at)
        login = {"Authorization": "Bearer none"}
        self._apis.append(Api(httpx2.Client(base_url=self.url, transport=self.gate, headers=login)))
        return self._apis[-1]

    def close(self) -> None:
        for api in self._apis:
            api.close()

    def all(self, kind: str) -> list[Object]:
        place = next(kubernetes.Place(one, "", "") for one in kubernetes.SERVED if one.kind == kind)
        items: list[Object] = self.store.list(place)["items"]
        return items

    def names(self) -> set[str]:
        """Everything in the namespaces that hyperpd made, and these."""
        found = {
            f"{kind.kind} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
            for kind in kubernetes.SERVED
            for one in self.all(kind.kind)
        }
        return found - {"Namespace /default"}

    def play(self) -> None:
        """What controllers do, in short: every workload that is not held is ready."""
        if self.controllers:
            return
        for kind in ("Deployment", "LeaderWorkerSet", "InferenceEndpointConfig"):
            for body in self.all(kind):
                if body["metadata"]["name"] in self.held:
                    continue
                if kind == "InferenceEndpointConfig":
                    status: Object = {"state": "DeploymentComplete"}
                else:
                    count = body["spec"]["replicas"]
                    status = {
                        "observedGeneration": body["metadata"]["generation"],
                        **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count),
                    }
                if body.get("status") != status:
                    self.store.put({**body, "status": status})


@contextmanager
def stage(*, schemas: bool = False, tls: ssl.SSLContext | None = None) -> Iterator[Stage]:
    """schemas: objects are held to the strict ones, which takes its time. tls: what the gateway speaks, if not HTTP."""
    store = kubernetes.Store(schemas=schemas)
    with kubernetes.serve(store) as url:
        found = Stage(store, url)
        with _gateway(found, tls) as gateway:
            store.backends["hyperpd", "gateway"] = gateway
            try:
                yield found
            finally:
                found.close()


def _gateway(stage: Stage, tls: ssl.SSLContext | None) -> AbstractContextManager[str]:
    """What answers behind the gateway's Service: `answers` one after the other, the last one again and again."""

    def answer(request: wire.Request) -> wire.Answer:
        try:
            if stage.keys:
                stage.keys.find(Headers(request.headers))
        except Rejected as error:
            status, body = error.status, error.body()
        else:
            stage.asked.append((request.target, json.loads(request.body)))
            status, body = stage.answers[0] if len(stage.answers) == 1 else stage.answers.pop(0)
        return wire.Answer(status, {}, json.dumps(body).encode())

    return wire.serve(answer, tls)
