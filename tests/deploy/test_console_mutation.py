"""Strictness, proven: every field of every resource and of the pasted groups misspelt, every required one dropped."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape
from cfnlint import lint
from cfnlint.config import ManualArgs
from cfnlint.data import AdditionalSpecs
from cfnlint.helpers import load_resource
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from jsonschema import Draft7Validator, ValidationError
from jsonschema.validators import extend

from tests.deploy import botocore_shapes
from tests.deploy.console_stacks import GIVEN, ORCHESTRATORS, REGION, Stack, from_s3, gpu_recipes, templates, texts
from tests.deploy.mutation import misspelt

Path = tuple[str | int, ...]
# What CloudFormation hands over unread: our own function's input.
FREE = {"Custom::Objects"}
_ELEMENT = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
_OPERATORS = {"StringEquals", "StringNotEquals", "StringLike", "Bool"}


def _block(body: Any, path: Path) -> Any:
    for key in path[:-1]:
        body = body[key]
    return body


def _mutated(body: Any, path: Path, what: str) -> Any:
    changed = copy.deepcopy(body)
    block = _block(changed, path)
    value = block.pop(path[-1])
    if what == "misspell":
        block[misspelt(str(path[-1]))] = value
    return changed


@cache
def _schema(kind: str) -> dict[str, Any]:
    return PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema


def _fields(value: Any, declared: Any, root: dict[str, Any], above: Path = ()) -> Iterator[tuple[Path, bool]]:
    """Paths of the fields that a resource's schema names, and whether it requires them."""
    while "$ref" in declared:
        declared = root["definitions"][declared["$ref"].rpartition("/")[2]]
    if isinstance(value, dict):
        for one in declared.get("oneOf", []):
            if set(value) <= set(one.get("properties", {})):
                declared = {**declared, **one}
        named = declared.get("properties", {})
        for key, inner in value.items():
            if key in named:
                yield (*above, key), key in declared.get("required", ())
                yield from _fields(inner, named[key], root, (*above, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _fields(inner, declared.get("items", {}), root, (*above, index))


def _policies(value: Any, above: Path = ()) -> Iterator[Path]:
    """Where policy documents are."""
    if isinstance(value, dict):
        if "Statement" in value:
            yield above
        for key, inner in value.items():
            yield from _policies(inner, (*above, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _policies(inner, (*above, index))


def _policy_problems(policy: Any) -> list[str]:
    """A closed grammar of what we write of IAM's; actions by cfn-lint's list."""
    found = [f"{key}: unknown" for key in policy if key not in ("Version", "Statement")]
    found += ["Version: missing"] if policy.get("Version") != "2012-10-17" else []
    for each in policy.get("Statement", [{}]):
        found += [f"{key}: unknown" for key in each if key not in _ELEMENT]
        found += [f"{key}: missing" for key in ("Effect", "Action") if key not in each]
        found += ["Resource, Principal: neither"] if not {"Resource", "Principal"} & set(each) else []
        found += [f"{key}: unknown" for key in each.get("Condition", {}) if key not in _OPERATORS]
        actions = each.get("Action", [])
        for action in [actions] if isinstance(actions, str) else actions:
            service, _, name = action.partition(":")
            if name.lower() not in _actions().get(service, set()):
                found.append(f"{action}: no such action")
    return found if "Statement" in policy else [*found, "Statement: missing"]


@cache
def _actions() -> dict[str, set[str]]:
    listed = load_resource(AdditionalSpecs, "Policies.json")
    return {service: {action.lower() for action in one["Actions"]} for service, one in listed.items()}


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not botocore_shapes.pattern(pattern).search(instance):
        yield ValidationError(f"{instance!r} does not match {pattern}")


_Validator: type[Draft7Validator] = extend(Draft7Validator, {"pattern": _pattern})


def _problems(kind: str, properties: Any) -> bool:
    """Whether the resource's schema, the grammar of policies or SageMaker's API model refuses it."""
    if next(_Validator(_schema(kind)).iter_errors(properties), None):
        return True
    return any(_policy_problems(_block([properties], (0, *path, 0))) for path in _policies(properties))


def _resources() -> Iterator[tuple[str, dict[str, Any]]]:
    """(type, properties), each once."""
    seen = set()
    renderings = [(kind, templates(name, kind)) for name in gpu_recipes() for kind in ORCHESTRATORS]
    for orchestrator, rendering in [*renderings, ("eks", from_s3())]:
        given = [GIVEN, {"S3PrefixListId": "pl-63a5400a", "AvailabilityZone": "us-east-1a"}]
        for template in rendering.values():
            for each in given if orchestrator == "slurm" else given[:1]:
                for one in Stack(template, each).resources().values():
                    shape = json.dumps([one["Type"], _skeleton(one["Properties"])], sort_keys=True)
                    if shape not in seen and one["Type"] not in FREE:
                        seen.add(shape)
                        yield one["Type"], one["Properties"]


def _skeleton(value: Any) -> Any:
    """Fields without values: resources that differ in values only have the same mutations."""
    if isinstance(value, dict):
        return {key: _skeleton(inner) for key, inner in value.items()}
    return [_skeleton(inner) for inner in value] if isinstance(value, list) else ""


def test_every_mutation_of_every_resource_is_noticed(capsys, record_property):
    tried: Counter[str] = Counter()
    missed = []
    kinds = set()
    for kind, properties in _resources():
        kinds.add(kind)
        assert not _problems(kind, properties), kind
        schema = _schema(kind)
        for path, required in _fields(properties, schema, schema):
            for what in ("misspell", "drop") if required else ("misspell",):
                tried[what] += 1
                if not _problems(kind, _mutated(properties, path, what)):
                    missed.append(f"{kind}: {what} {path}")
        for above in _policies(properties):
            policy = _block([properties], (0, *above, 0))
            for path in _policy_fields(policy):
                tried["policy"] += 1
                if not _policy_problems(_mutated(policy, path, "misspell")):
                    missed.append(f"{kind}: misspell {above + path}")
    with capsys.disabled():
        print(f"\n{len(kinds)} types, mutations tried and noticed: {dict(tried)}, missed: {len(missed)}")
    record_property("mutations", dict(tried))
    assert not missed, "\n".join(missed)
    assert tried["misspell"] > 400
    assert tried["drop"] > 100


def _policy_fields(policy: dict[str, Any]) -> Iterator[Path]:
    yield from ((key,) for key in policy)
    for index, statement in enumerate(policy["Statement"]):
        yield from (("Statement", index, key) for key in statement if key not in ("Sid", "Condition"))
        yield from (("Statement", index, "Condition", key) for key in statement.get("Condition", {}))


def test_every_misspelt_action_is_noticed():
    tried = 0
    for _, properties in _resources():
        for above in _policies(properties):
            policy = _block([properties], (0, *above, 0))
            for index, statement in enumerate(policy["Statement"]):
                if isinstance(statement["Action"], list):
                    for at, action in enumerate(statement["Action"]):
                        changed = copy.deepcopy(policy)
                        changed["Statement"][index]["Action"][at] = misspelt(action)
                        tried += 1
                        assert _policy_problems(changed), action
    assert tried > 30


def _members(shape: Shape, value: Any, above: Path = ()) -> Iterator[tuple[Path, bool]]:
    if isinstance(shape, StructureShape):
        for key, inner in value.items():
            yield (*above, key), key in shape.required_members
            yield from _members(shape.members[key], inner, (*above, key))
    elif isinstance(shape, ListShape):
        for index, inner in enumerate(value):
            yield from _members(shape.member, inner, (*above, index))
    elif isinstance(shape, MapShape):
        for key, inner in value.items():
            yield from _members(shape.value, inner, (*above, key))


def test_every_mutation_of_the_pasted_groups_is_noticed(capsys):
    tried: Counter[str] = Counter()
    shape = botocore_shapes.shape("sagemaker", "CreateCluster")
    for name in gpu_recipes():
        for orchestrator in ORCHESTRATORS:
            pasted = json.loads(texts(name, orchestrator)["instance-group-settings.json"])
            request = {"ClusterName": "a", "InstanceGroups": pasted}
            for path, required in _members(shape, request):
                for what in ("misspell", "drop") if required else ("misspell",):
                    tried[what] += 1
                    changed = _mutated(request, path, what)
                    assert botocore_shapes.problems("sagemaker", "CreateCluster", changed), f"{what} {path}"
    with capsys.disabled():
        print(f"\npasted groups, mutations tried and noticed: {dict(tried)}")
    assert tried["misspell"] > 500


# Of a template itself, one of each kind of block.
PARTS: list[Path] = [
    ("Resources",),
    ("Parameters",),
    ("Conditions",),
    ("Outputs",),
    ("Rules",),
    ("AWSTemplateFormatVersion",),
    ("Description",),
    ("Parameters", "Prefix", "Type"),
    ("Parameters", "Prefix", "AllowedPattern"),
    ("Parameters", "Prefix", "Default"),
    ("Parameters", "NodeRecovery", "AllowedValues"),
    ("Parameters", "VpcId"),
    ("Conditions", "MakeVpc"),
    ("Resources", "Vpc"),
    ("Resources", "Cluster", "Type"),
    ("Resources", "Cluster", "Properties"),
    ("Resources", "Cluster", "DependsOn"),
    ("Resources", "Cluster", "Condition"),
    ("Outputs", "ClusterArn", "Value"),
    ("Outputs", "ClusterArn", "Condition"),
    ("Rules", "VpcAndSubnet", "Assertions"),
]


@pytest.mark.parametrize("path", PARTS, ids=lambda path: ".".join(path))
def test_a_misspelt_part_of_a_template_is_noticed(path):
    template = templates("qwen3-32b-p5-4p2d", "slurm")["1-cluster.yaml"]
    del template["Resources"]["ExecutionRole"]["Properties"]["Policies"]  # they take most of the time
    body = json.dumps(_mutated(template, path, "misspell"))
    assert lint(body, regions=[REGION], config=ManualArgs(regions=[REGION]))
