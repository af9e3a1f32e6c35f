"""Instance types: known to hyperpd's facts, and to the boto3 that sends them. Pure, offline."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from hyperpd.cluster.preflight.finding import Finding, warning, written
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.instances import INSTANCES


def real(nodes: Iterable[Nodes], sendable: frozenset[str] | None) -> list[Nodes]:
    """Those of a type that somebody knows: nothing more is asked about a misspelled one."""
    known = {facts.name for facts in INSTANCES} | (sendable or frozenset())
    return [one for one in nodes if sendable is None or set(one.types) <= known]


def check(nodes: Iterable[Nodes], sendable: frozenset[str] | None) -> Iterator[Finding]:
    """sendable: the types that the installed boto3 knows; None without boto3."""
    known = {facts.name: facts for facts in INSTANCES}
    for one in nodes:
        path = f"{one.path}.instance_type{'s' if one.group.instance_types else ''}"
        for name in one.types:
            if name in known:
                continue
            near = difflib.get_close_matches(name, [*known, *(sendable or ())], 1)
            if sendable is not None and name not in sendable:
                mended = dict.fromkeys(near[0] if each == name else each for each in one.types) if near else ()
                value = f"[{', '.join(mended)}]" if one.group.instance_types else "".join(mended)
                fix = f"set {path}: {value}" if near else "pip install -U boto3"
                what = f"{one.name}: neither HyperPod's API nor hyperpd knows the type {name}"
                yield written("instance-type", what, path, fix)
            elif one.exchanges:
                what = f"{one.name}: nothing is known here of {name}: GPUs, EFA, addresses and price are not checked"
                yield warning(
                    "instance-type", what, path, f"take one that is known: {', '.join(near) or 'ml.p5.48xlarge'}"
                )
