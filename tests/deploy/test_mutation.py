"""Strictness, proven: every field of every rendered object misspelt, every required one dropped; all are noticed."""

from __future__ import annotations

import json
from collections import Counter

import yaml

from tests.deploy import mutation, schema
from tests.deploy.objects_recipes import OWN
from tests.deploy.objects_rendered import cases, rendered

# Mutations that a validator cannot notice, each with why. None is known.
ACCEPTED: dict[str, str] = {}

# Own recipes reach every kind of object; of the shipped ones, one of each sort adds what they may not.
CASES = [(name, on) for name, on in cases() if name in OWN or name in ("tiny-cpu-1p1d", "tiny-gpu-1p1d")]


def test_every_mutation_of_every_rendered_object_is_noticed(record_property, capsys):
    tried: Counter[str] = Counter()
    seen: set[str] = set()
    missed = []
    for name, platform in CASES:
        for body in rendered(name, platform):
            if (text := json.dumps(body, sort_keys=True)) in seen:
                continue  # the same object of another recipe
            seen.add(text)
            for each in mutation.mutations(body):
                tried[each.what] += 1
                if not schema.problems(each.body) and str(each) not in ACCEPTED:
                    missed.append(f"{name}, {platform}, {body['kind']}: {each}")
    with capsys.disabled():
        print(f"\n{len(seen)} objects, mutations tried and noticed: {dict(tried)}, missed: {len(missed)}")
    record_property("mutations", dict(tried))
    assert not missed, "\n".join(missed)
    assert tried["misspell"] > 1000
    assert tried["drop"] > 300


def test_fields_are_named_by_the_schema_and_labels_are_not():
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "labels": {"free": "text"}},
        "spec": {
            "selector": {"matchLabels": {"free": "text"}},
            "template": {
                "spec": {
                    "nodeSelector": {"free": "text"},
                    "containers": [{"name": "c", "resources": {"limits": {"cpu": 1}}}],
                }
            },
        },
    }
    checker = schema.validator("apps/v1", "Deployment", schema.VERSIONS[-1])
    assert checker is not None
    found = {".".join(map(str, path)): required for path, required in mutation.fields(body, checker.schema)}
    assert not [path for path in found if path.endswith(("free", "cpu"))]
    assert found["spec.template.spec.containers.0.name"]
    assert found["spec.selector"]
    assert not found["spec.template.spec.nodeSelector"]
    assert found["kind"]


def test_a_schema_that_is_not_closed_is_found_out():
    """A definition as its project publishes it lets a server drop unknown fields: those mutations go unnoticed."""
    spec = yaml.safe_load((schema.CRDS / "workloadpriorityclasses.yaml").read_text())["spec"]
    version = spec["versions"][-1]
    published = schema.Strict(version["schema"]["openAPIV3Schema"])
    body = {"apiVersion": f"{spec['group']}/{version['name']}", "kind": spec["names"]["kind"], "value": 1}
    body |= {"metadata": {"name": "a"}, "description": "b"}
    tried = list(mutation.mutations(body))
    assert {str(each) for each in tried if published.is_valid(each.body)} >= {"misspell description", "misspell kind"}
    assert [str(each) for each in tried if not schema.problems(each.body)] == []
