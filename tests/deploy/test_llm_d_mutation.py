"""Strictness, proven: every field of llm-d's objects misspelt, every required one dropped; all are noticed."""

from __future__ import annotations

import json
from collections import Counter

from tests.deploy import mutation, schema
from tests.deploy.llm_d_rendered import PRIORITIES, example, made, rendered

CASES = [
    ("tiny-cpu-1p1d", ("front=both", "hostname=llm.example")),
    ("tiny-cpu-1p1d", ("route=nginx", "front=canary")),
    ("efa-two-nodes", ()),
]


def test_every_mutation_of_every_object_is_noticed(record_property, capsys) -> None:
    tried: Counter[str] = Counter()
    seen: set[str] = set()
    missed = []
    for name, more in CASES:
        every = [*rendered(name, *more), *made(name, *more, PRIORITIES), *example("istio"), *example("nginx")]
        for body in every:
            if (text := json.dumps(body, sort_keys=True)) in seen:
                continue
            seen.add(text)
            for each in mutation.mutations(body):
                tried[each.what] += 1
                if not schema.problems(each.body):
                    missed.append(f"{name} {more}, {body['kind']}: {each}")
    with capsys.disabled():
        print(f"\n{len(seen)} objects, mutations tried and noticed: {dict(tried)}, missed: {len(missed)}")
    record_property("mutations", dict(tried))
    assert not missed, "\n".join(missed)
    assert tried["misspell"] > 500
    assert tried["drop"] > 100
