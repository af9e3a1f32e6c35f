"""A stand-in API server, and the console's functions as Lambda has them."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.deploy.console_stacks import STACK, templates

NATIVE = {
    "v1": {
        "Namespace": "namespaces",
        "ServiceAccount": "serviceaccounts",
        "ConfigMap": "configmaps",
        "Service": "services",
    },
    "apps/v1": {"Deployment": "deployments"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
}
LWS = {"leaderworkerset.x-k8s.io/v1": {"LeaderWorkerSet": "leaderworkersets"}}


class Server(ThreadingHTTPServer):
    """Discovery, server-side apply, deletion, a Service's proxy, and the place CloudFormation waits at."""

    def __init__(self, known: dict[str, dict[str, str]], denied: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.known, self.denied = known, denied
        self.inadmissible = ""  # a kind
        self.objects: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.told: list[Any] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One request; what a real server refuses, it refuses."""

    server: Server

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")

    def _denied(self) -> bool:
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if bearer != "token" and not bearer.startswith("group "):
            self._answer(401, {"message": "who?"})
            return True
        if bearer != "token" and not self._allowed(bearer.removeprefix("group ")):
            self._answer(403, {"message": "forbidden"})
            return True
        if self.server.denied:
            self.server.denied -= 1
            self._answer(403, {"message": "not yet"})
            return True
        return False

    def _allowed(self, group: str) -> bool:
        """As RBAC decides on a subresource in a namespace: the name is the path's, the verb the method's."""
        _, _, _, _, room, resource, name, subresource, *_ = [*self.path.split("/"), "", "", ""]
        verb = {"POST": "create"}.get(self.command, self.command.lower())
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}
        there = [one for one in self.server.objects.values() if one["metadata"].get("namespace") == room]
        roles = {one["metadata"]["name"]: one for one in there if one["kind"] == "Role"}
        bound = [one for one in there if one["kind"] == "RoleBinding" and subject in one["subjects"]]
        return any(
            rule["apiGroups"] == [""]
            and verb in rule["verbs"]
            and f"{resource}/{subresource}" in rule["resources"]
            and name in rule["resourceNames"]
            for binding in bound
            for rule in roles[binding["roleRef"]["name"]]["rules"]
        )

    def do_GET(self) -> None:
        if self._denied():
            return
        if found := self.server.objects.get(self.path):
            self._answer(200, {**found, "metadata": {**found["metadata"], "uid": f"uid of {self.path}"}})
            return
        version = self.path.removeprefix("/apis/").removeprefix("/api/")
        kinds = self.server.known.get(version)
        if kinds is None:
            self._answer(404, {"message": "not found"})
            return
        listed = [{"name": plural, "kind": kind, "namespaced": kind != "Namespace"} for kind, plural in kinds.items()]
        self._answer(200, {"resources": [*listed, {"name": "services/proxy", "kind": "Service", "namespaced": True}]})

    def do_PATCH(self) -> None:
        if self._denied():
            return
        path, _, query = self.path.partition("?")
        body = self._body()
        room = body["metadata"].get("namespace")
        if room and f"/api/v1/namespaces/{room}" not in self.server.objects:
            self._answer(404, {"message": f"namespace {room} not found"})
        elif body["kind"] == self.server.inadmissible:
            self._answer(403, {"message": "admission webhook denied the request"})
        elif self.headers["Content-Type"] != "application/apply-patch+yaml" or "fieldManager=" not in query:
            self._answer(415, {"message": "no apply"})
        else:
            self.server.objects[path] = body
            self._answer(201, body)

    def do_DELETE(self) -> None:
        if not self._denied():
            same = (self._body() or {}).get("preconditions", {}).get("uid", f"uid of {self.path}")
            if same != f"uid of {self.path}":
                self._answer(409, {"message": "another"})
                return
            self._answer(200 if self.server.objects.pop(self.path, None) else 404, {})

    def do_POST(self) -> None:
        if not self._denied():
            self.server.asked.append((self.path, self._body()))
            self._answer(200, {"choices": [{"message": {"content": "Rhine"}}]})

    def do_PUT(self) -> None:
        self.server.told.append(self._body())
        self._answer(200, {})

    def log_message(self, *_: Any) -> None: ...


URL = "https://cloudformation-custom-resource-response-useast1.s3.amazonaws.com/answer?signed"


def inlined(name: str, server: Server, which: str = "Apply", token: str = "token") -> dict[str, Any]:
    """The names of a function as Lambda has them: its source out of the template, run. `handler`: what Lambda calls."""
    properties = templates(name, "eks")["3-serve.yaml"]["Resources"][which]["Properties"]
    names: dict[str, Any] = {"__name__": "index"}
    exec(compile(properties["Code"]["ZipFile"], "index.py", "exec"), names)
    names["connect"] = lambda: names["Kubernetes"](server.url, token, None, [].append)
    tell = names["tell"]
    names["tell"] = lambda url, answer: tell(server.url, {**answer, "url": url})
    names["handler"] = names[properties["Handler"].removeprefix("index.")]
    return names


def event(server: Server, kind: str = "Create") -> dict[str, Any]:
    """What CloudFormation sends."""
    physical = server.told[-1]["PhysicalResourceId"] if server.told else None
    made = {"RequestType": kind, "ResponseURL": URL, "StackId": STACK, "RequestId": "r", "LogicalResourceId": "l"}
    return made | ({"PhysicalResourceId": physical} if kind != "Create" else {})
