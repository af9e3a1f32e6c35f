"""problems(object) → everything an API server would refuse in it, unknown fields included.

Kubernetes' own kinds are held to the strict schemas of the package kubernetes-validate, in the oldest and
the newest version that HyperPod lists; custom resources to their definitions in tests/data/crds, closed
against unknown fields, with their CEL rules. A real server also fills in defaults before it runs CEL
rules; none of the rules here reads a field that has a default.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import celpy.adapter
import celpy.evaluation
import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry, Resource

Schema = dict[str, Any]

VERSIONS = ("1.28", "1.34")  # oldest and newest Kubernetes that HyperPod lists for EKS
CRDS = Path(__file__).parents[1] / "data" / "crds"
_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
_DEFINITIONS = "https://kubernetes.io/api/_definitions.json"
_META = f"{_DEFINITIONS}#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

rules_run: Counter[str] = Counter()  # CEL rule → how often it was run


def problems(body: Mapping[str, Any]) -> list[str]:
    """Every problem of one object, each with its path; the same one in several versions counts once."""
    found: dict[str, None] = {}
    for version in VERSIONS:
        checker = validator(str(body.get("apiVersion")), str(body.get("kind")), version)
        if checker is None:
            return [f"apiVersion, kind: no schema of {body.get('kind')} in {body.get('apiVersion')}"]
        for error in checker.iter_errors(body):
            found[f"{'.'.join(map(str, error.absolute_path)) or 'object'}: {error.message}"] = None
    return list(found)


@cache
def validator(api_version: str, kind: str, version: str) -> Draft202012Validator | None:
    """What holds objects of this kind to their schema, or None where nothing is known of it."""
    group, _, served = api_version.rpartition("/")
    name = f"{kind.lower()}-{group.split('.')[0]}-{served}" if group else f"{kind.lower()}-{served}"
    path = _SCHEMAS / f"v{version}.0-local-strict" / f"{name}.json"
    schema = json.loads(path.read_text()) if path.is_file() else _custom().get((api_version, kind))
    if schema is None or not _same(schema, api_version):
        return None
    return Strict(schema, registry=registry(version))


def is_core(body: Mapping[str, Any]) -> bool:
    """Whether an object is of a kind of Kubernetes itself."""
    return (body["apiVersion"], body["kind"]) not in _custom()


def resolve(schema: Any, version: str = VERSIONS[-1]) -> Schema:
    """`schema`, or what its reference points at."""
    while "$ref" in schema:
        schema = _definitions(version)["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _same(schema: Schema, api_version: str) -> bool:
    """File names hold a group's first word only, so that of example.com/v1 could be another group's."""
    return api_version in schema["properties"]["apiVersion"].get("enum", [api_version])


@cache
def _definitions(version: str) -> Schema:
    return json.loads((_SCHEMAS / f"v{version}.0-local-strict" / "_definitions.json").read_text())


@cache
def registry(version: str) -> Registry:
    return Resource.from_contents(_definitions(version)) @ Registry()


@cache
def _custom() -> dict[tuple[str, str], Schema]:
    """(apiVersion, kind) → closed schema, of every custom resource in tests/data/crds."""
    found = {}
    for path in CRDS.glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        for each in spec["versions"]:
            schema = closed(each["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"$ref": _META}
            if each["served"]:
                found[f"{spec['group']}/{each['name']}", spec["names"]["kind"]] = schema
    return found


def closed(schema: Schema) -> Schema:
    """A structural schema as a JSON schema that refuses what a server would silently drop.

    Only where fields are declared: below allOf, anyOf, oneOf and not, a structural schema may only restrict.
    """
    new = dict(schema)
    if "properties" in schema:
        new["properties"] = {name: closed(inner) for name, inner in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            new[key] = closed(schema[key])
    if schema.get("x-kubernetes-embedded-resource"):
        new["properties"] = {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": _META},
            **new.get("properties", {}),
        }
    if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        new.setdefault("additionalProperties", False)
    if schema.get("nullable") and "type" in schema:
        new["type"] = [schema["type"], "null"]
    return new


def _cel(_: Any, rules: list[Schema], instance: Any, schema: Schema) -> Iterator[ValidationError]:
    """x-kubernetes-validations; rules that compare with oldSelf are for updates, and are skipped."""
    for each in rules:
        rule = each["rule"]
        if re.search(r"\boldSelf\b", rule):
            continue
        rules_run[rule] += 1
        try:
            holds = bool(_program(rule).evaluate({"self": celpy.adapter.json_to_cel(instance)}))
        except celpy.evaluation.CELEvalError as error:
            yield ValidationError(f"rule {rule} cannot be evaluated: {error}")
            continue
        if not holds:
            yield ValidationError(each.get("message", f"rule {rule} is false"))


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def _unique(_: Any, keys: list[str], instance: Any, schema: Schema) -> Iterator[ValidationError]:
    """x-kubernetes-list-map-keys: two entries with the same keys make a server-side apply fail."""
    defaults = {"protocol": "TCP"}
    entries = [entry for entry in instance or [] if isinstance(entry, dict)]
    counts = Counter(tuple(str(entry.get(key, defaults.get(key))) for key in keys) for entry in entries)
    for values, count in counts.items():
        if count > 1:
            yield ValidationError(f"{count} entries with {', '.join(keys)} {', '.join(values)}")


def _integer_range(_: Any, name: str, instance: Any, schema: Schema) -> Iterator[ValidationError]:
    """format int32 and int64: a server cannot read a larger number."""
    bits = {"int32": 31, "int64": 63}.get(name)
    if bits and isinstance(instance, int) and not -(2**bits) <= instance < 2**bits:
        yield ValidationError(f"{instance} is not an {name}")


Strict: type[Draft202012Validator] = extend(
    Draft202012Validator,
    {"x-kubernetes-validations": _cel, "x-kubernetes-list-map-keys": _unique, "format": _integer_range},
)
