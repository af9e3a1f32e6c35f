"""The function that applies objects, run from the template's text against a stand-in API server."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hyperpd.deploy.console import function
from tests.deploy.console_stacks import ACCOUNT, GIVEN, STACK, Stack, templates

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
}
LWS = {"leaderworkerset.x-k8s.io/v1": {"LeaderWorkerSet": "leaderworkersets"}}


class Server(ThreadingHTTPServer):
    """Discovery, server-side apply, deletion, a Service's proxy, and the place CloudFormation waits at."""

    def __init__(self, known: dict[str, dict[str, str]], denied: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.known, self.denied = known, denied
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
        if self.headers.get("Authorization") != "Bearer token":
            self._answer(401, {"message": "who?"})
            return True
        if self.server.denied:
            self.server.denied -= 1
            self._answer(403, {"message": "not yet"})
            return True
        return False

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


@pytest.fixture
def server(request):
    made = Server(NATIVE | LWS)
    yield made
    made.shutdown()
    made.server_close()


URL = "https://cloudformation-custom-resource-response-useast1.s3.amazonaws.com/answer?signed"


def _inlined(name: str, server: Server, pauses: list[float] | None = None) -> dict[str, Any]:
    """The names of the function as Lambda has them: its source out of the template, run."""
    template = templates(name, "eks")["3-serve.yaml"]
    source = template["Resources"]["Function"]["Properties"]["Code"]["ZipFile"]
    names: dict[str, Any] = {"__name__": "index"}
    exec(compile(source, "index.py", "exec"), names)
    names["connect"] = lambda: names["Kubernetes"](server.url, "token", None, (pauses or []).append)
    tell = names["tell"]
    names["tell"] = lambda url, answer: tell(server.url, {**answer, "url": url})
    return names


def _event(server: Server, kind: str = "Create") -> dict[str, Any]:
    physical = server.told[-1]["PhysicalResourceId"] if server.told else None
    event = {"RequestType": kind, "ResponseURL": URL, "StackId": STACK, "RequestId": "r", "LogicalResourceId": "l"}
    return event | ({"PhysicalResourceId": physical} if kind != "Create" else {})


def _arrived(server: Server) -> list[Any]:
    """What is there, without what says whose it is; that is on every namespace."""
    found = json.loads(json.dumps(list(server.objects.values())))
    for one in found:
        if one["kind"] == "Namespace":
            assert one["metadata"]["annotations"].pop(function.OWNER) == STACK
            if not one["metadata"]["annotations"]:
                del one["metadata"]["annotations"]
    return found


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    template = templates("qwen3-32b-p5-4p2d", "eks")["3-serve.yaml"]
    variables = Stack(template, GIVEN).resources()["Function"]["Properties"]["Environment"]["Variables"]
    monkeypatch.setenv("STACK", variables["STACK"])


@pytest.mark.parametrize("name", ["qwen3-32b-p5-4p2d", "deepseek-r1-p5en-1p1d", "gpt-oss-120b-p6-b200-4p1d"])
def test_objects_arrive_as_rendered_and_go_again(name, server):
    names = _inlined(name, server)
    names["handler"](_event(server), None)
    (told,) = server.told
    assert told["Status"] == "SUCCESS", told
    assert {"PhysicalResourceId", "StackId", "RequestId", "LogicalResourceId", "Data"} <= set(told)
    wanted = [one for one in names["OBJECTS"] if one["apiVersion"].split("/")[0] not in function.OPTIONAL]
    assert _arrived(server) == wanted
    assert "left out" in told["Reason"]  # no Prometheus Operator there
    names["handler"](_event(server, "Update"), None)
    assert _arrived(server) == wanted
    names["handler"](_event(server, "Delete"), None)
    assert [one["Status"] for one in server.told] == ["SUCCESS"] * 3
    assert not [one for one in server.objects.values() if one["kind"] == "Namespace"]


def test_objects_are_those_of_the_target_kubernetes():
    from hyperpd import deploy
    from hyperpd.recipe import load
    from tests.deploy.console_stacks import IMAGE

    file = load("gpt-oss-120b-p6-b200-4p1d")
    names = _inlined(file.path.stem, Server({}))
    settings = [f"image={IMAGE}", "cache_folder=/opt/hyperpd/data/models"]
    wanted = deploy.render(file, "kubernetes", settings).documents
    assert names["OBJECTS"] == json.loads(json.dumps([dict(one.body) for one in wanted]))


def test_an_unknown_kind_is_refused_before_anything_is_applied(server):
    del server.known["leaderworkerset.x-k8s.io/v1"]
    _inlined("deepseek-r1-p5en-1p1d", server)["handler"](_event(server), None)
    (told,) = server.told
    assert told["Status"] == "FAILED"
    assert "does not know LeaderWorkerSet of leaderworkerset.x-k8s.io/v1" in told["Reason"]
    assert not server.objects


def test_an_access_entry_that_does_not_hold_yet_is_waited_for(server):
    server.denied = 3
    pauses: list[float] = []
    names = _inlined("qwen3-32b-p5-4p2d", server)
    names["connect"] = lambda: names["Kubernetes"](server.url, "token", None, pauses.append)
    names["handler"](_event(server), None)
    assert server.told[0]["Status"] == "SUCCESS"
    assert len(pauses) == 3


def test_one_that_never_holds_fails_with_the_servers_word(server):
    server.denied = 10**6
    _inlined("qwen3-32b-p5-4p2d", server)["handler"](_event(server), None)
    assert server.told[0]["Status"] == "FAILED"
    assert "403" in server.told[0]["Reason"]


def test_a_server_that_refuses_an_object_is_quoted(server):
    names = _inlined("qwen3-32b-p5-4p2d", server)
    names["OBJECTS"][:] = [one for one in names["OBJECTS"] if one["kind"] != "Namespace"]
    names["handler"](_event(server), None)
    assert "not found" in server.told[0]["Reason"]


def _namespace(name: str, **annotations: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}}


@pytest.mark.parametrize("owner", [{}, {function.OWNER: STACK + "other"}])
def test_a_namespace_that_was_there_before_is_neither_changed_nor_deleted(owner, server):
    there = "/api/v1/namespaces/hyperpd"
    server.objects[there] = before = _namespace("hyperpd", **owner)
    names = _inlined("qwen3-32b-p5-4p2d", server)
    names["handler"](_event(server), None)
    told = server.told[-1]
    assert (told["Status"], told["PhysicalResourceId"]) == ("FAILED", function.NOT_APPLIED)
    assert "Namespace hyperpd is there, and not made by this stack" in told["Reason"]
    assert server.objects == {there: before}
    names["handler"](_event(server, "Delete"), None)  # the rollback's
    assert server.told[-1]["Status"] == "SUCCESS"
    assert server.objects == {there: before}


def test_a_delete_leaves_namespaces_of_others(server):
    names = _inlined("qwen3-32b-p5-4p2d", server)
    names["handler"](_event(server), None)
    assert server.told[-1]["PhysicalResourceId"] == "objects"
    there = "/api/v1/namespaces/hyperpd"
    server.objects[there] = other = _namespace("hyperpd")
    names["handler"](_event(server, "Delete"), None)
    assert server.told[-1]["Status"] == "SUCCESS"
    assert "left, this stack did not make: Namespace hyperpd" in server.told[-1]["Reason"]
    assert [one for one in server.objects.values() if one["kind"] == "Namespace"] == [other]


def test_the_rollback_of_what_was_never_applied_asks_nobody(server):
    names = _inlined("qwen3-32b-p5-4p2d", server)
    names["connect"] = lambda: pytest.fail("connected")
    names["handler"](_event(server, "Delete") | {"PhysicalResourceId": function.NOT_APPLIED}, None)
    assert server.told[-1]["Status"] == "SUCCESS"


def test_a_create_that_fails_midway_takes_its_own_namespaces_along(server):
    names = _inlined("qwen3-32b-p5-4p2d", server)
    names["OBJECTS"].append(_namespace("later"))
    names["OBJECTS"].append({**names["OBJECTS"][2], "metadata": {"name": "a", "namespace": "nowhere"}})
    names["handler"](_event(server), None)
    assert server.told[-1]["PhysicalResourceId"] == function.NOT_APPLIED
    assert not [one for one in server.objects.values() if one["kind"] == "Namespace"]


def test_what_a_failed_create_cannot_delete_is_said_beside_the_reason(server):
    names = _inlined("qwen3-32b-p5-4p2d", server)
    names["OBJECTS"].append({**names["OBJECTS"][2], "metadata": {"name": "a", "namespace": "nowhere"}})

    def refused(*_: Any) -> str:
        raise names["Refused"]("no")

    names["delete"] = refused
    names["handler"](_event(server), None)
    assert "namespace nowhere not found; what was made is left: no" in server.told[-1]["Reason"]


@pytest.mark.parametrize(
    "change",
    [
        {"StackId": STACK + "other"},
        {"StackId": None},
        {"ResponseURL": "https://example.com/"},
        {"ResponseURL": "http://a.s3.amazonaws.com/"},
        {"ResponseURL": "https://amazonaws.com.example/"},
        {"ResponseURL": "https://evilamazonaws.com/"},
        {"ResponseURL": "https://a@example.com:443/.amazonaws.com"},
        {"ResponseURL": None},
    ],
)
def test_an_event_that_is_not_cloudformations_for_this_stack_does_nothing(change, server, monkeypatch):
    names = _inlined("qwen3-32b-p5-4p2d", server)
    for kind in ("Create", "Update", "Delete"):
        with pytest.raises(names["Refused"]):
            names["handler"](_event(server, kind) | change, None)
    monkeypatch.delenv("STACK")
    with pytest.raises(names["Refused"]):
        names["handler"](_event(server), None)
    assert not server.told
    assert not server.objects


@pytest.mark.parametrize(
    ("name", "room"), [("qwen3-32b-p5-4p2d", "hyperpd"), ("gpt-oss-120b-p6-b200-4p1d", "hyperpd-engines")]
)
def test_any_other_event_is_a_request_to_the_gateway(name, room, server, monkeypatch):
    template = templates(name, "eks")["3-serve.yaml"]
    variables = template["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    assert variables["NAMESPACE"] == room
    monkeypatch.setenv("NAMESPACE", room)
    names = _inlined(name, server)
    service = [one["metadata"] for one in names["OBJECTS"] if one["kind"] == "Service"][-1]
    assert (service["name"], service["namespace"]) == ("gateway", room)
    answer = names["handler"]({"model": "m", "messages": []}, None)
    assert answer == {"status": 200, "answer": {"choices": [{"message": {"content": "Rhine"}}]}}
    ((path, body),) = server.asked
    assert path == f"/api/v1/namespaces/{room}/services/http:gateway:8080/proxy/v1/chat/completions"
    assert body == {"model": "m", "messages": []}


def test_the_token_is_signed_for_this_cluster(monkeypatch):
    import ssl

    import boto3
    from moto import mock_aws
    from moto.eks.models import eks_backends

    for key, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "CLUSTER": "prod",
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: None)
    with mock_aws():
        vpc = {"subnetIds": [], "securityGroupIds": []}
        role = f"arn:aws:iam::{ACCOUNT}:role/eks"
        made = boto3.client("eks").create_cluster(name="prod", roleArn=role, resourcesVpcConfig=vpc)["cluster"]
        known = eks_backends[ACCOUNT]["us-east-1"].clusters["prod"]
        known.certificate_authority = {"data": base64.b64encode(b"PEM").decode()}  # moto's is no base64 of a text
        cluster = function.connect()
    assert cluster.url == made["endpoint"]
    kind, _, encoded = cluster.token.partition("k8s-aws-v1.")
    url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    assert kind == ""
    assert "Action=GetCallerIdentity" in url
    assert "X-Amz-SignedHeaders=host%3Bx-k8s-aws-id" in url
    assert "X-Amz-Expires=60" in url
