"""Who owns which field: server-side apply, and what other writes leave in metadata.managedFields.

As structured-merge-diff does it. An apply lays its fields over the object, takes away what the manager applied
before and applies no longer where nobody else owns it, and is refused where it changes what another manager owns,
unless it forces. Any other write owns what it changes. The same value applied by two managers is owned by both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.fakes.kubernetes import fields
from tests.fakes.kubernetes.fields import Path, Schema
from tests.fakes.kubernetes.refusal import Object, Refused


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """One entry of managedFields. operation: Apply or Update."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    def spell(self, time: str) -> str:
        said = json.dumps(self.name)
        if self.subresource:
            said += f' with subresource "{self.subresource}"'
        return said if self.operation == "Apply" else f"{said} using {self.api_version} at {time}"


@dataclass(slots=True)
class Owned:
    """What a manager owns, and since when."""

    paths: set[Path] = field(default_factory=set)
    time: str = ""


def read(body: Mapping[str, Any] | None) -> dict[Manager, Owned]:
    """metadata.managedFields of an object."""
    entries = ((body or {}).get("metadata") or {}).get("managedFields") or ()
    return {
        Manager(one["manager"], one["operation"], one["apiVersion"], one.get("subresource", "")): Owned(
            set(fields.decode(one["fieldsV1"])), one.get("time", "")
        )
        for one in entries
    }


def write(managers: Mapping[Manager, Owned]) -> list[Object]:
    """Managers in managedFields' form; one that owns nothing is left out."""
    return [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields.encode(owned.paths),
            **({"subresource": manager.subresource} if manager.subresource else {}),
        }
        for manager, owned in sorted(managers.items())
        if owned.paths
    ]


def apply(live: Object | None, given: Object, schema: Schema, manager: Manager, force: bool, time: str) -> Object:
    """The object after a server-side apply, with its managedFields. Raises Refused (409) for a conflict."""
    managers, old, mine = read(live), fields.owned(live or {}), fields.owned(given)
    last = managers.pop(manager, Owned())
    wanted = set(fields.flatten(mine, schema))
    merged = fields.merge(old, mine, schema)
    others = {path for owned in managers.values() for path in owned.paths}
    merged = fields.prune(merged, schema, fields.prefixes(last.paths), fields.prefixes(wanted | others))
    changed, removed = compare(old, merged, schema)
    _refuse_conflicts(managers, changed, force)
    for owned in managers.values():
        owned.paths -= changed | removed
    managers[manager] = Owned(wanted, last.time if wanted == last.paths and not changed else time)
    return _joined(live or given, merged, managers)


def update(live: Object | None, new: Object, schema: Schema, manager: Manager, time: str) -> Object:
    """`new` with its managedFields: the manager owns what it changes of `live`."""
    managers = read(live)
    changed, removed = compare(fields.owned(live or {}), fields.owned(new), schema)
    for other, owned in managers.items():
        owned.paths -= removed if other == manager else changed | removed
    if changed:
        before = managers.get(manager, Owned()).paths
        managers[manager] = Owned(before | changed, time)
    return _joined(new, fields.owned(new), managers)


def compare(old: Object, new: Object, schema: Schema) -> tuple[set[Path], set[Path]]:
    """The fields of `new` that are added or changed, and those of `old` that are gone."""
    before, after = fields.flatten(old, schema), fields.flatten(new, schema)
    changed = {path for path, value in after.items() if path not in before or not _same(before[path], value)}
    return changed, set(before) - set(after)


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _refuse_conflicts(managers: Mapping[Manager, Owned], changed: set[Path], force: bool) -> None:
    conflicts = {
        owner.spell(owned.time): [fields.spell(path) for path in sorted(owned.paths & changed)]
        for owner, owned in sorted(managers.items())
        if owned.paths & changed
    }
    if not conflicts or force:
        return
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": path}
        for owner, paths in conflicts.items()
        for path in paths
    ]
    if len(causes) == 1:
        said = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        listed = "\n".join(
            f"conflicts with {owner}:\n" + "\n".join(f"- {path}" for path in paths)
            for owner, paths in conflicts.items()
        )
        said = f"Apply failed with {len(causes)} conflicts: {listed}"
    raise Refused(HTTPStatus.CONFLICT, "Conflict", said, causes)


def _joined(body: Object, owned: Object, managers: Mapping[Manager, Owned]) -> Object:
    """`owned` with what no manager owns of `body`: its kind, its name, what the server wrote."""
    theirs = {key: body[key] for key in ("apiVersion", "kind")}
    kept = fields.owned(body).get("metadata", {})
    meta = {key: value for key, value in body["metadata"].items() if key not in kept}
    meta |= owned.get("metadata", {})
    meta.pop("managedFields", None)
    if entries := write(managers):
        meta["managedFields"] = entries
    return {**theirs, "metadata": meta, **{key: value for key, value in owned.items() if key != "metadata"}}
