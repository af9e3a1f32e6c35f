"""Objects as sets of fields, merged as a server merges them: by the kinds' own schemas.

A map is granular unless its schema says atomic; a list is atomic unless its schema says that it is a map (its
entries are told apart by their keys: containers by name, ports by port and protocol …) or a set. The schemas are
those of tests/deploy/schema.py; where they know nothing (below x-kubernetes-preserve-unknown-fields), maps are
granular and lists atomic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.deploy import schema as strict
from tests.fakes.kubernetes.refusal import Refused
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.state import copied

Schema = Mapping[str, Any]
Path = tuple[str, ...]  # elements in FieldsV1's form: f:name, k:{"name":"a"}, v:"a"
_KEY_DEFAULTS = {"protocol": "TCP"}
_SERVER_OWNED = ("apiVersion", "kind")
_METADATA_OWNED = (
    "name", "generateName", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink",
    "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds",
)  # fmt: skip


def schema_of(resource: Resource) -> Schema:
    """The schema of a kind, {} where there is none."""
    found = strict.validator(resource.api_version, resource.kind, strict.VERSIONS[-1])
    return found.schema if found else {}


def owned(body: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an object that managers can own."""
    kept = {key: value for key, value in body.items() if key not in _SERVER_OWNED}
    meta = {key: value for key, value in (body.get("metadata") or {}).items() if key not in _METADATA_OWNED}
    kept.pop("metadata", None)
    return {**kept, "metadata": meta} if meta else kept


def flatten(value: Any, schema: Schema, path: Path = ()) -> dict[Path, Any]:
    """Every field of an object with its value; an entry of a list of entries is a field itself, without a value."""
    found: dict[Path, Any] = {}
    children = list(_children(value, schema, path))
    if path and (path[-1].startswith("k:") or not children):
        found[path] = None if children else value
    for element, child, inner in children:
        found |= flatten(child, inner, (*path, element))
    return found


def merge(live: Any, given: Any, schema: Schema, path: Path = ()) -> Any:
    """`given` laid over `live`; entries of a list of entries keep the order of `live`, new ones follow."""
    if _kind(given, schema) != _kind(live, schema) or _kind(given, schema) == "leaf":
        return copied(given)
    old = {element: (child, inner) for element, child, inner in _children(live, schema, path)}
    new = {element: (child, inner) for element, child, inner in _children(given, schema, path)}
    merged = {element: child for element, (child, _) in old.items()}
    for element, (child, inner) in new.items():
        known = element in old
        merged[element] = merge(old[element][0], child, inner, (*path, element)) if known else copied(child)
    if isinstance(given, list):
        return list(merged.values())
    return {element[2:]: child for element, child in merged.items()}


def prune(value: Any, schema: Schema, dropped: set[Path], kept: set[Path], path: Path = ()) -> Any:
    """`value` without what is `dropped`, at any depth, and not `kept`; both hold prefixes, too (see `prefixes`)."""
    left = {
        element: prune(child, inner, dropped, kept, (*path, element))
        for element, child, inner in _children(value, schema, path)
        if (*path, element) not in dropped or (*path, element) in kept
    }
    if _kind(value, schema) == "leaf":
        return value
    return list(left.values()) if isinstance(value, list) else {element[2:]: child for element, child in left.items()}


def prefixes(paths: Iterable[Path]) -> set[Path]:
    """The paths, and those of everything that they are in."""
    return {path[:length] for path in paths for length in range(1, len(path) + 1)}


def encode(paths: Iterable[Path]) -> dict[str, Any]:
    """FieldsV1: nested, with "." where an entry is owned itself and not only something in it."""
    paths, tree = set(paths), {}
    inner = prefixes(path[:-1] for path in paths)
    for path in sorted(paths):
        node: dict[str, Any] = tree
        for element in path:
            node = node.setdefault(element, {})
        if path in inner:
            node["."] = {}
    return tree


def decode(tree: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """The paths of FieldsV1."""
    if path and (not tree or "." in tree):
        yield path
    for element, inner in tree.items():
        if element != ".":
            yield from decode(inner, (*path, element))


def spell(path: Path) -> str:
    """As a server writes it: .spec.containers[name="a"].image."""
    said = ""
    for element in path:
        form, rest = element[:2], element[2:]
        if form == "f:":
            said += f".{rest}"
        elif form == "k:":
            said += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items()) + "]"
        else:
            said += f"[={rest}]"
    return said


def _children(value: Any, schema: Schema, path: Path) -> Iterator[tuple[str, Any, Schema]]:
    """What is in a value, each with its element and its schema; nothing in a leaf."""
    schema = strict.resolve(schema)
    match _kind(value, schema):
        case "map":
            for name, child in value.items():
                yield f"f:{name}", child, _field(schema, name)
        case "entries":
            for child in value:
                yield f"k:{_keys(child, schema['x-kubernetes-list-map-keys'], path)}", child, schema.get("items", {})
        case "set":
            for child in value:
                yield f"v:{json.dumps(child)}", child, schema.get("items", {})


def _kind(value: Any, schema: Schema) -> str:
    schema = strict.resolve(schema)
    if isinstance(value, dict):
        return "leaf" if schema.get("x-kubernetes-map-type") == "atomic" else "map"
    if isinstance(value, list):
        return {"map": "entries", "set": "set"}.get(schema.get("x-kubernetes-list-type", ""), "leaf")
    return "leaf"


def _field(schema: Schema, name: str) -> Schema:
    if name in schema.get("properties", {}):
        return schema["properties"][name]
    others = schema.get("additionalProperties")
    return others if isinstance(others, dict) else {}


def _keys(entry: Any, keys: list[str], path: Path) -> str:
    found = {key: entry.get(key, _KEY_DEFAULTS.get(key)) for key in keys} if isinstance(entry, dict) else {}
    for key in keys:
        if found.get(key) is None and len(keys) == 1:
            why = f'associative list with keys has an element that omits key field "{key}"'
            raise Refused(500, "", f"failed to create typed patch object: {spell(path)}: {why}")
    return json.dumps({key: value for key, value in sorted(found.items()) if value is not None}, separators=(",", ":"))
