"""Strict validation: that it notices, agrees with kubernetes-validate, and that every rendered object passes."""

from __future__ import annotations

import copy

import kubernetes_validate
import pytest
import yaml

from hyperpd.errors import RecipeError
from tests.deploy import objects_names, schema
from tests.deploy.objects_rendered import REFUSED, cases, rendered

SCALED = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "decode"},
    "spec": {
        "scaleTargetRef": {"name": "decode"},
        "minReplicaCount": 1,
        "maxReplicaCount": 4,
        "triggers": [{"type": "prometheus", "metadata": {"query": "up"}}],
    },
}
POD = {"containers": [{"name": "worker", "image": "i", "ports": [{"containerPort": 1}]}]}
GROUP = {
    "apiVersion": "leaderworkerset.x-k8s.io/v1",
    "kind": "LeaderWorkerSet",
    "metadata": {"name": "decode", "namespace": "ours"},
    "spec": {"leaderWorkerTemplate": {"size": 2, "workerTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": POD}}},
}


def _changed(body, path, value):
    new = copy.deepcopy(body)
    block = new
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    return new


def test_right_objects_have_no_problem():
    assert schema.problems(SCALED) == []
    assert schema.problems(GROUP) == []


@pytest.mark.parametrize(
    ("body", "path", "value", "said"),
    [
        (SCALED, ("spec", "minReplicaCount"), 5, "minReplicaCount must be less than or equal"),  # a CEL rule
        (SCALED, ("spec", "maxReplicas"), 5, "'maxReplicas' was unexpected"),
        (SCALED, ("spec", "triggers"), [], "spec.triggers"),
        (SCALED, ("metadata", "label"), {}, "'label' was unexpected"),
        (SCALED, ("apiVersion",), "keda.sh/v2", "no schema of ScaledObject in keda.sh/v2"),
        (SCALED, ("kind",), "ScaledObjects", "no schema of ScaledObjects"),
        (GROUP, ("spec", "leaderWorkerTemplate", "size"), 2**31, "is not an int32"),
        (
            GROUP,
            ("spec", "leaderWorkerTemplate", "workerTemplate", "spec", "container"),
            [],
            "'container' was unexpected",
        ),
        (
            GROUP,
            ("spec", "leaderWorkerTemplate", "workerTemplate", "spec", "containers", 0, "ports"),
            [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}],
            "2 entries with containerPort, protocol",
        ),
    ],
)
def test_a_wrong_object_has_one(body, path, value, said):
    found = schema.problems(_changed(body, path, value))
    assert any(said in problem for problem in found), found


def test_every_problem_is_told_at_once():
    wrong = _changed(_changed(SCALED, ("spec", "a"), 1), ("spec", "minReplicaCount"), 5)
    assert len(schema.problems(wrong)) == 2


def test_a_schema_of_another_group_is_not_taken():
    """kubernetes-validate takes apps.example.com/v1 for apps/v1."""
    assert schema.problems({"apiVersion": "apps.example.com/v1", "kind": "Deployment", "metadata": {"name": "a"}})


def test_free_form_stays_free_and_the_rest_is_closed():
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    open_schema = {
        "type": "object",
        "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "map": {"type": "object", "additionalProperties": inner},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": True, **inner},
            "amount": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True},
            "none": {"type": "string", "nullable": True},
        },
        "anyOf": [{"required": ["free"]}, {"required": ["map"]}],
    }
    checker = schema.Strict(schema.closed(open_schema), registry=schema.registry(schema.VERSIONS[-1]))
    right = {"free": {"x": 1}, "map": {"any": {"a": "b"}}, "embedded": {"kind": "A"}, "amount": "5%", "none": None}
    assert checker.is_valid(right)
    for wrong in ({"map": {"any": {"b": 1}}}, {"free": {}, "embedded": {"b": 1}}, {"free": {}, "other": 1}):
        assert not checker.is_valid(wrong), wrong


def test_rules_that_compare_with_the_old_object_are_skipped():
    rules = [{"rule": "self == oldSelf"}, {"rule": "self.size() > 2", "message": "too short"}]
    checker = schema.Strict({"type": "string", "x-kubernetes-validations": rules})
    assert [error.message for error in checker.iter_errors("ab")] == ["too short"]
    assert checker.is_valid("abc")


def test_a_queue_may_be_made_though_its_rule_is_about_updates():
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "a"}}
    assert schema.problems({**queue, "spec": {"clusterQueue": "b"}}) == []
    assert schema.problems({**queue, "spec": {"clusterQueues": "b"}})


def test_a_rule_that_cannot_be_evaluated_is_a_problem():
    checker = schema.Strict({"type": "object", "x-kubernetes-validations": [{"rule": "self.missing > 2"}]})
    assert "cannot be evaluated" in next(checker.iter_errors({})).message


def test_the_excerpts_name_their_source():
    readme = (schema.CRDS / "README.md").read_text()
    for path in schema.CRDS.glob("*.yaml"):
        assert path.name in readme
        assert yaml.safe_load(path.read_text())["kind"] == "CustomResourceDefinition"


@pytest.mark.parametrize(("name", "platform"), cases())
def test_rendered_objects_are_valid(name, platform):
    objects = rendered(name, platform)
    found = [
        f"{body['kind']}/{body['metadata']['name']}: {problem}"
        for body in objects
        for problem in [*schema.problems(body), *objects_names.problems(body)]
    ]
    assert not found, "\n".join(found)
    for body in objects:
        if schema.is_core(body):
            kubernetes_validate.validate(body, schema.VERSIONS[-1], strict=True)


def test_texts_and_amounts_that_no_schema_refuses():
    """Each problem of objects_names, in one object."""
    container = {
        "name": "Worker",
        "env": [{"name": "A", "value": "1", "valueFrom": {}}, {"name": "A"}, {"name": "1 b"}],
        "ports": [{"name": "a-name-that-is-too-long", "containerPort": 1}],
        "startupProbe": {"httpGet": {"port": "api"}, "tcpSocket": {"port": 1}, "successThreshold": 2},
        "resources": {
            "requests": {"nvidia.com/gpu": 1, "memory": "2Gi"},
            "limits": {"memory": "1Gi", "hugepages-2Mi": "1Gi"},
        },
    }
    labels = {"a b": "c", "a": "with space", "b": 1}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    body = {"kind": "Deployment", "metadata": {"name": "x" * 47}, "spec": {"template": template}}
    found = "\n".join(objects_names.problems(body))
    for said in (
        "too long",
        "a b is no label",
        "value 'with space'",
        "value 1",
        "its name is no DNS label",
        "A is given twice",
        "A has two values",
        "1 b is no variable",
        "is no port's name",
        "startupProbe needs one action",
        "successThreshold has to be 1",
        "no port is called api",
        "nvidia.com/gpu: request and limit",
        "memory: the request is above the limit",
    ):
        assert said in found
    del container["resources"]["requests"], container["resources"]["limits"]["memory"]
    assert "huge pages need" in "\n".join(objects_names.problems(body))


@pytest.mark.parametrize(("name", "platform"), list(REFUSED))
def test_what_is_refused_is_refused_for_that(name: str, platform: str) -> None:
    with pytest.raises(RecipeError, match=REFUSED[name, platform]):
        rendered(name, platform)
