"""The operator's objects: strictly valid, and every field misspelt, every required one dropped, is noticed."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.deploy import mutation, objects_names, schema
from tests.deploy.operator_rendered import bodies, cases

# Mutations that a validator cannot notice, each with why. None is known.
ACCEPTED: dict[str, str] = {}


@pytest.mark.parametrize(("name", "given"), cases())
def test_rendered_objects_are_valid(name, given):
    for body in bodies(name, given):
        found = [*schema.problems(body), *objects_names.problems(body)]
        assert not found, f"{body['kind']}/{body['metadata']['name']}: " + "\n".join(found)


def test_every_mutation_of_every_rendered_object_is_noticed(record_property, capsys):
    tried: Counter[str] = Counter()
    shapes: set[str] = set()
    missed = []
    for name, given in cases():
        for body in bodies(name, given):
            # One of each shape: the same fields with other values are the same mutations.
            if (shape := json.dumps(_shape(body), sort_keys=True)) in shapes:
                continue
            shapes.add(shape)
            for each in mutation.mutations(body):
                tried[each.what] += 1
                if not schema.problems(each.body) and str(each) not in ACCEPTED:
                    missed.append(f"{name}, {body['kind']}: {each}")
    with capsys.disabled():
        print(f"\n{len(shapes)} objects, mutations tried and noticed: {dict(tried)}, missed: {len(missed)}")
    record_property("mutations", dict(tried))
    assert not missed, "\n".join(missed)
    assert tried["misspell"] > 500
    assert tried["drop"] > 150


def test_a_role_called_as_others_call_it_is_found_out():
    """decodeSpec: what a hasty author writes, and a server drops."""
    (body,) = (one for one in bodies("qwen3-32b-p5-4p2d", ()) if "spec" in one)
    spec = dict(body["spec"])
    pair = dict(spec["pdSpec"])
    pair["decodeSpec"] = pair.pop("decodingSpec")
    found = schema.problems({**body, "spec": {**spec, "pdSpec": pair}})
    assert any("decodeSpec" in problem for problem in found)
    assert any("'decodingSpec' is a required property" in problem for problem in found)


def _shape(value):
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    return [_shape(inner) for inner in value] if isinstance(value, list) else type(value).__name__
