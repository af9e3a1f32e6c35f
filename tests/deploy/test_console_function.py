"""The function that applies objects, run from the template's text against a stand-in API server."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from hyperpd.deploy.console import function
from tests.deploy import schema
from tests.deploy.console_cluster import LWS, NATIVE, Server, event, inlined
from tests.deploy.console_stacks import ACCOUNT, GIVEN, STACK, Stack, templates


@pytest.fixture
def server(request):
    made = Server(NATIVE | LWS)
    yield made
    made.shutdown()
    made.server_close()


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
    variables = Stack(template, GIVEN).resources()["Apply"]["Properties"]["Environment"]["Variables"]
    monkeypatch.setenv("STACK", variables["STACK"])


@pytest.mark.parametrize("name", ["qwen3-32b-p5-4p2d", "deepseek-r1-p5en-1p1d", "gpt-oss-120b-p6-b200-4p1d"])
def test_objects_arrive_as_rendered_and_go_again(name, server):
    names = inlined(name, server)
    names["handler"](event(server), None)
    (told,) = server.told
    assert told["Status"] == "SUCCESS", told
    assert {"PhysicalResourceId", "StackId", "RequestId", "LogicalResourceId", "Data"} <= set(told)
    wanted = [one for one in names["OBJECTS"] if one["apiVersion"].split("/")[0] not in function.OPTIONAL]
    assert _arrived(server) == wanted
    assert "left out" in told["Reason"]  # no Prometheus Operator there
    names["handler"](event(server, "Update"), None)
    assert _arrived(server) == wanted
    names["handler"](event(server, "Delete"), None)
    assert [one["Status"] for one in server.told] == ["SUCCESS"] * 3
    assert not [one for one in server.objects.values() if one["kind"] == "Namespace"]


def test_objects_are_those_of_the_target_kubernetes():
    from hyperpd import deploy
    from hyperpd.recipe import load
    from tests.deploy.console_stacks import IMAGE

    file = load("gpt-oss-120b-p6-b200-4p1d")
    names = inlined(file.path.stem, Server({}))
    settings = [f"image={IMAGE}", "cache_folder=/opt/hyperpd/data/models"]
    wanted = deploy.render(file, "kubernetes", settings).documents
    *objects, role, binding = names["OBJECTS"]
    assert objects == json.loads(json.dumps([dict(one.body) for one in wanted]))
    assert (role["kind"], binding["kind"]) == ("Role", "RoleBinding")  # who may ask


def test_an_unknown_kind_is_refused_before_anything_is_applied(server):
    del server.known["leaderworkerset.x-k8s.io/v1"]
    inlined("deepseek-r1-p5en-1p1d", server)["handler"](event(server), None)
    (told,) = server.told
    assert told["Status"] == "FAILED"
    assert "does not know LeaderWorkerSet of leaderworkerset.x-k8s.io/v1" in told["Reason"]
    assert not server.objects


def test_an_access_entry_that_does_not_hold_yet_is_waited_for(server):
    server.denied = 3
    names = inlined("qwen3-32b-p5-4p2d", server)
    pauses = _counting(names, server)
    names["handler"](event(server), None)
    assert server.told[0]["Status"] == "SUCCESS"
    assert len(pauses) == 3


def test_one_that_never_holds_fails_with_the_servers_word(server):
    server.denied = 10**6
    inlined("qwen3-32b-p5-4p2d", server)["handler"](event(server), None)
    assert server.told[0]["Status"] == "FAILED"
    assert "403" in server.told[0]["Reason"]


def _counting(names: dict[str, Any], server: Server) -> list[float]:
    """The pauses that a function makes, which is run with them."""
    pauses: list[float] = []
    names["connect"] = lambda: names["Kubernetes"](server.url, "token", None, pauses.append)
    return pauses


def test_what_the_cluster_does_not_admit_is_not_waited_for(server):
    """That is a 403, too; our entry holds by then."""
    server.inadmissible = "Deployment"
    names = inlined("qwen3-32b-p5-4p2d", server)
    pauses = _counting(names, server)
    names["handler"](event(server), None)
    assert server.told[0]["Status"] == "FAILED"
    assert "403 admission webhook denied the request" in server.told[0]["Reason"]
    assert not pauses
    assert not [one for one in server.objects.values() if one["kind"] == "Namespace"]


def test_that_the_cluster_knows_us_is_not_yet_that_the_entry_holds(server):
    """Discovery is for everybody whom it knows."""
    names = inlined("qwen3-32b-p5-4p2d", server)
    pauses = _counting(names, server)
    cluster = names["connect"]()
    names["connect"] = lambda: cluster
    for one in names["OBJECTS"]:
        cluster.path(one)
    server.denied = 2
    names["handler"](event(server), None)
    assert server.told[0]["Status"] == "SUCCESS", server.told
    assert len(pauses) == 2


def test_cloudformation_hears_of_an_entry_that_is_taken_away_while_lambda_still_runs(server):
    """Waiting, and the rollback's, stay below the function's time altogether."""
    names = inlined("qwen3-32b-p5-4p2d", server)
    pauses, send = _counting(names, server), names["_send"]

    def taken_away(*words: Any) -> None:
        server.denied = 10**6
        send(*words)

    names["_send"] = taken_away
    names["handler"](event(server), None)
    assert server.told[0]["Status"] == "FAILED"
    assert "what was made is left" in server.told[0]["Reason"]
    timeout_s = templates("qwen3-32b-p5-4p2d", "eks")["3-serve.yaml"]["Resources"]["Apply"]["Properties"]["Timeout"]
    assert sum(pauses) < timeout_s / 2


def test_a_server_that_refuses_an_object_is_quoted(server):
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["OBJECTS"][:] = [one for one in names["OBJECTS"] if one["kind"] != "Namespace"]
    names["handler"](event(server), None)
    assert "not found" in server.told[0]["Reason"]


def _namespace(name: str, **annotations: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}}


@pytest.mark.parametrize("owner", [{}, {function.OWNER: STACK + "other"}])
def test_a_namespace_that_was_there_before_is_neither_changed_nor_deleted(owner, server):
    there = "/api/v1/namespaces/hyperpd"
    server.objects[there] = before = _namespace("hyperpd", **owner)
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["handler"](event(server), None)
    told = server.told[-1]
    assert (told["Status"], told["PhysicalResourceId"]) == ("FAILED", function.NOT_APPLIED)
    assert "Namespace hyperpd is there, and not made by this stack" in told["Reason"]
    assert server.objects == {there: before}
    names["handler"](event(server, "Delete"), None)  # the rollback's
    assert server.told[-1]["Status"] == "SUCCESS"
    assert server.objects == {there: before}


def test_a_delete_leaves_namespaces_of_others(server):
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["handler"](event(server), None)
    assert server.told[-1]["PhysicalResourceId"] == "objects"
    there = "/api/v1/namespaces/hyperpd"
    server.objects[there] = other = _namespace("hyperpd")
    names["handler"](event(server, "Delete"), None)
    assert server.told[-1]["Status"] == "SUCCESS"
    assert "left, this stack did not make: Namespace hyperpd" in server.told[-1]["Reason"]
    assert [one for one in server.objects.values() if one["kind"] == "Namespace"] == [other]


def test_the_rollback_of_what_was_never_applied_asks_nobody(server):
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["connect"] = lambda: pytest.fail("connected")
    names["handler"](event(server, "Delete") | {"PhysicalResourceId": function.NOT_APPLIED}, None)
    assert server.told[-1]["Status"] == "SUCCESS"


def test_a_create_that_fails_midway_takes_its_own_namespaces_along(server):
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["OBJECTS"].append(_namespace("later"))
    names["OBJECTS"].append({**names["OBJECTS"][2], "metadata": {"name": "a", "namespace": "nowhere"}})
    names["handler"](event(server), None)
    assert server.told[-1]["PhysicalResourceId"] == function.NOT_APPLIED
    assert not [one for one in server.objects.values() if one["kind"] == "Namespace"]


def test_what_a_failed_create_cannot_delete_is_said_beside_the_reason(server):
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["OBJECTS"].append({**names["OBJECTS"][2], "metadata": {"name": "a", "namespace": "nowhere"}})

    def refused(*_: Any) -> str:
        raise names["Refused"]("no")

    names["delete"] = refused
    names["handler"](event(server), None)
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
    names = inlined("qwen3-32b-p5-4p2d", server)
    for kind in ("Create", "Update", "Delete"):
        with pytest.raises(names["Refused"]):
            names["handler"](event(server, kind) | change, None)
    monkeypatch.delenv("STACK")
    with pytest.raises(names["Refused"]):
        names["handler"](event(server), None)
    assert not server.told
    assert not server.objects


@pytest.mark.parametrize(
    ("name", "room"), [("qwen3-32b-p5-4p2d", "hyperpd"), ("gpt-oss-120b-p6-b200-4p1d", "hyperpd-engines")]
)
def test_who_asks_may_send_the_gateway_a_request(name, room, server, monkeypatch):
    template = templates(name, "eks")["3-serve.yaml"]
    variables = template["Resources"]["Ask"]["Properties"]["Environment"]["Variables"]
    assert variables["NAMESPACE"] == room
    monkeypatch.setenv("NAMESPACE", room)
    applied = inlined(name, server)
    service = [one["metadata"] for one in applied["OBJECTS"] if one["kind"] == "Service"][-1]
    assert (service["name"], service["namespace"]) == ("gateway", room)
    applied["handler"](event(server), None)
    (group,) = Stack(template, GIVEN).resources()["AskEntry"]["Properties"]["KubernetesGroups"]
    answer = inlined(name, server, "Ask", f"group {group}")["handler"]({"model": "m", "messages": []}, None)
    assert answer == {"status": 200, "answer": {"choices": [{"message": {"content": "Rhine"}}]}}
    ((path, body),) = server.asked
    assert path == f"/api/v1/namespaces/{room}/services/http:gateway:8080/proxy/v1/chat/completions"
    assert body == {"model": "m", "messages": []}


def test_who_asks_may_do_nothing_else(server, monkeypatch):
    name, room = "qwen3-32b-p5-4p2d", "hyperpd"
    inlined(name, server)["handler"](event(server), None)
    there, asking = dict(server.objects), inlined(name, server, "Ask", f"group {room}:ask")
    cluster = asking["connect"]()
    proxy = f"/api/v1/namespaces/{room}/services/http:gateway:8080/proxy/v1/models"
    assert cluster.call("POST", proxy, {})[0] == 200
    for method, path in (
        ("GET", proxy),
        ("POST", proxy.replace("gateway:8080", "gateway:8081")),  # its admin port
        ("POST", proxy.replace("hyperpd/", "hyperpd-engines/")),
        ("GET", f"/api/v1/namespaces/{room}/pods/a/log"),
        ("DELETE", f"/api/v1/namespaces/{room}"),
    ):
        assert cluster.call(method, path)[0] == 403, path
    monkeypatch.setenv("NAMESPACE", room)
    answer = asking["handler"](event(server, "Delete"), None)  # CloudFormation's word is nothing to it
    assert answer["status"] == 200
    assert server.objects == there


def test_who_applies_sends_no_requests(server):
    with pytest.raises(Exception, match="an event of another stack"):
        inlined("qwen3-32b-p5-4p2d", server)["handler"]({"model": "m", "messages": []}, None)
    assert not server.asked


def _update(server: Server, former: list[str]) -> dict[str, Any]:
    return event(server, "Update") | {"OldResourceProperties": {"Objects": former}}


def test_an_update_deletes_what_it_no_longer_has(server):
    """Of what this stack applied, and of that only."""
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["handler"](event(server), None)
    gone = [one for one in names["OBJECTS"] if one["metadata"]["name"] == "gateway" and one["kind"] != "Namespace"]
    assert {"Service", "Deployment"} <= {one["kind"] for one in gone}
    former = templates("qwen3-32b-p5-4p2d", "eks")["3-serve.yaml"]["Resources"]["Objects"]["Properties"]["Objects"]
    names["OBJECTS"][:] = [one for one in names["OBJECTS"] if one not in gone]
    by_hand = {"kind": "Deployment", "metadata": {"name": "mine"}}
    server.objects["/apis/apps/v1/namespaces/hyperpd/deployments/mine"] = by_hand
    names["handler"](_update(server, former), None)
    said = server.told[-1]
    assert said["Status"] == "SUCCESS", said
    assert "deleted, no longer part of it: " in said["Reason"]
    assert "Deployment gateway" in said["Reason"]
    wanted = [one for one in names["OBJECTS"] if one["apiVersion"].split("/")[0] not in function.OPTIONAL]
    assert _arrived(server) == [*wanted, by_hand]
    names["handler"](_update(server, former), None)  # done twice, it does nothing
    assert server.told[-1]["Status"] == "SUCCESS"


def test_an_update_to_another_namespace_deletes_the_one_before(server):
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["handler"](event(server), None)
    former = [names["name"](one) for one in names["OBJECTS"]]
    names["OBJECTS"][:] = json.loads(
        json.dumps(names["OBJECTS"]).replace('"hyperpd"', '"other"').replace('"hyperpd-', '"other-')
    )
    names["handler"](_update(server, former), None)
    assert server.told[-1]["Status"] == "SUCCESS", server.told[-1]
    rooms = {path for path, one in server.objects.items() if one["kind"] == "Namespace"}
    assert rooms == {"/api/v1/namespaces/other", "/api/v1/namespaces/other-engines"}
    assert not [path for path in server.objects if "/namespaces/hyperpd" in path]


def test_an_update_leaves_what_this_stack_did_not_make(server):
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["handler"](event(server), None)
    server.objects["/api/v1/namespaces/kube-system"] = _namespace("kube-system")
    there = {"kind": "ConfigMap", "metadata": {"name": "a"}}
    server.objects["/api/v1/namespaces/kube-system/configmaps/a"] = there
    former = ["v1 Namespace - kube-system", "v1 ConfigMap kube-system a", "example.com/v1 Gone - b"]
    names["handler"](_update(server, former), None)
    assert "left, this stack did not make: ConfigMap a, Namespace kube-system" in server.told[-1]["Reason"]
    assert there in server.objects.values()


def test_an_update_that_fails_deletes_nothing(server):
    names = inlined("qwen3-32b-p5-4p2d", server)
    names["handler"](event(server), None)
    there = dict(server.objects)
    former = [names["name"](one) for one in names["OBJECTS"]]
    names["OBJECTS"][:] = [{**names["OBJECTS"][2], "metadata": {"name": "a", "namespace": "nowhere"}}]
    names["handler"](_update(server, former), None)
    assert server.told[-1]["Status"] == "FAILED"
    assert server.objects == there


@pytest.mark.parametrize("name", ["qwen3-32b-p5-4p2d", "gpt-oss-120b-p6-b200-4p1d"])
def test_the_names_of_the_objects_are_in_the_stack(name, server):
    names = inlined(name, server)
    listed = templates(name, "eks")["3-serve.yaml"]["Resources"]["Objects"]["Properties"]["Objects"]
    assert listed == [names["name"](one) for one in names["OBJECTS"]]
    assert len(set(listed)) == len(listed)
    assert [one for body in names["OBJECTS"] for one in schema.problems(body)] == []
    assert schema.problems({**names["OBJECTS"][-1], "roleReff": {}})


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
