"""A cluster to deploy to: the API server's stand-in, its controllers played, the gateway's answer, and faults.

Between client and server there is a gate: it counts requests that change something, and may cut one off before or after
its effect, as a process that is killed does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from hyperpd.deploy.apply import Api
from tests.fakes import kubernetes

Object = dict[str, Any]
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]}
_CHANGES = ("POST", "PUT", "PATCH", "DELETE")


class Killed(BaseException):
    """The process is gone: nobody catches this."""


class Gate(httpx2.BaseTransport):
    """Cuts off at the changing request number `at`: with Killed before its effect, or by losing its answer."""

    def __init__(self, stage: Stage, at: int = 0, *, lose: bool = False) -> None:
        self.stage, self.at, self.lose = stage, at, lose
        self._wire = httpx2.HTTPTransport()
        self.changes: list[str] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path.endswith("/selfsubjectreviews"):
            return httpx2.Response(201, json={"status": {"userInfo": {"username": "ana"}}})
        if "/proxy/" in path:
            self.stage.asked.append((path, json.loads(request.read())))
            status, body = self.stage.answers[0] if len(self.stage.answers) == 1 else self.stage.answers.pop(0)
            return httpx2.Response(status, json=body)
        changing = request.method in _CHANGES and "dryRun" not in request.url.params
        if changing:
            self.changes.append(f"{request.method} {path}")
        here = changing and len(self.changes) == self.at
        if here and not self.lose:
            raise Killed
        self.stage.play()
        answer = self._wire.handle_request(request)
        if here:
            answer.read()
            raise httpx2.ReadError("the answer is lost")
        return answer

    def close(self) -> None:
        self._wire.close()


class Stage:
    """held: names of workloads that never become ready."""

    def __init__(self, store: kubernetes.Store, url: str) -> None:
        self.store, self.url = store, url
        self.held: set[str] = set()
        self.asked: list[tuple[str, Object]] = []
        self.answers: list[tuple[int, Object]] = [(200, ANSWER)]
        self.gate = Gate(self)
        self._apis: list[Api] = []

    def api(self, at: int = 0, *, lose: bool = False) -> Api:
        """A new client behind a new gate."""
        self.gate = Gate(self, at, lose=lose)
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
        """What controllers do: every workload that is not held is ready."""
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
def stage(*, schemas: bool = False) -> Iterator[Stage]:
    """schemas: objects are held to the strict ones, which takes its time."""
    store = kubernetes.Store(schemas=schemas)
    with kubernetes.serve(store) as url:
        found = Stage(store, url)
        try:
            yield found
        finally:
            found.close()
