"""Admission: what a server refuses of an object before it keeps it.

Schemas are those of tests/deploy/schema.py. Whatever they refuse is 422 Invalid here; a real server answers 400
or 500 for some unknown fields, by how they are sent, and drops them where nobody asked for strictness.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.deploy import schema as strict
from tests.fakes.kubernetes.refusal import Object, forbidden, invalid
from tests.fakes.kubernetes.resources import Place

Hook = Callable[[str, Place, Object], str | None]
# What never changes once it is there, by kind.
_IMMUTABLE = {
    "Deployment": ("spec.selector",),
    "StatefulSet": ("spec.selector", "spec.serviceName", "spec.volumeClaimTemplates"),
    "Job": ("spec.selector", "spec.template", "spec.completions"),
    "Service": ("spec.clusterIP",),
    "Secret": ("type",),
    "RoleBinding": ("roleRef",),
    "PersistentVolumeClaim": ("spec.storageClassName", "spec.volumeName"),
}


@dataclass(slots=True)
class Admission:
    """webhooks: name → (verb, place, object) → why it is denied, or None."""

    schemas: bool = True
    webhooks: dict[str, Hook] = field(default_factory=dict)

    def check(self, verb: str, at: Place, new: Object, old: Object | None) -> None:
        """Raises Refused for what is not to be kept."""
        what = f'{at.resource.qualified_kind} "{new["metadata"]["name"]}"'
        for name, hook in self.webhooks.items():
            if why := hook(verb, at, copy.deepcopy(new)):
                raise forbidden(f'admission webhook "{name}" denied the request: {why}')
        if self.schemas and (problems := strict.problems(_held(at, new))):
            raise invalid(what, problems)
        if old and (
            fixed := [path for path in _IMMUTABLE.get(at.resource.kind, ()) if _at(old, path) != _at(new, path)]
        ):
            raise invalid(what, [f"{path}: Invalid value: field is immutable" for path in fixed])


def _held(at: Place, body: Object) -> Object:
    """What the schemas speak of: the excerpts of custom resources have no status."""
    return body if "." not in at.resource.group else {key: value for key, value in body.items() if key != "status"}


def _at(body: object, path: str) -> object:
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body
