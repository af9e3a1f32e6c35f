"""Store: what an API server does to the objects of a cluster, and what a test scripts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus

from tests.fakes.kubernetes import fields, ownership
from tests.fakes.kubernetes.access import Access
from tests.fakes.kubernetes.admission import Admission
from tests.fakes.kubernetes.defaults import filled
from tests.fakes.kubernetes.faults import Faults
from tests.fakes.kubernetes.quota import exceeded
from tests.fakes.kubernetes.refusal import Object, Refused, bad, conflict, invalid, missing
from tests.fakes.kubernetes.resources import NAMESPACE, QUOTA, SUBRESOURCES, Place, place
from tests.fakes.kubernetes.state import State, copied, now

_BORN = {"Namespace": {"phase": "Active"}, "Pod": {"phase": "Pending"}}  # the status a server gives a new object


class Store(State):
    """Objects, and what may be done to them."""

    def __init__(self, namespaces: Sequence[str] = ("default",), *, schemas: bool = True) -> None:
        super().__init__()
        self.admission = Admission(schemas=schemas)
        self.access, self.faults = Access(), Faults()
        self.absent: set[str] = set()  # kinds whose definition is not installed
        self.backends: dict[tuple[str, str], str] = {}  # (namespace, Service) → URL of what answers for it
        self.posted: list[Object] = []  # bodies as they came, in the order in which they were taken
        self.refused: list[str] = []  # "POST PATH: why"
        self.requests: list[str] = []  # "POST PATH?QUERY", answered or refused
        for name in namespaces:
            self.create(
                place("/api/v1/namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            )

    def create(self, at: Place, body: Object, manager: str = "stand-in", dry_run: bool = False) -> Object:
        """Keep a new object. Raises Refused as a server would."""
        _check_kind(at, body)
        meta = body.get("metadata") or {}
        if not meta.get("name") and meta.get("generateName"):
            body = {**body, "metadata": {**meta, "name": f"{meta['generateName']}{self._version:05x}"}}
            meta = body["metadata"]
        if not meta.get("name"):
            raise bad("metadata.name: Required value")
        if meta.get("namespace", at.namespace) != at.namespace:
            raise bad(f"the namespace of the object ({meta['namespace']}) is not the request's ({at.namespace})")
        if meta.get("resourceVersion"):
            raise bad("resourceVersion should not be set on objects to be created")
        with self.changed:
            key = replace(at, name=meta["name"])
            if key in self._objects:
                message = f"{key} already exists"
                raise Refused(HTTPStatus.CONFLICT, "AlreadyExists", message)
            new = filled(at.resource, {**_without_status(at, body), "metadata": dict(meta)})
            owned = ownership.update(None, new, fields.schema_of(at.resource), self._updater(at, manager), now())
            return self._keep("create", key, owned, None, dry_run)

    def replace(self, at: Place, body: Object, manager: str = "stand-in", dry_run: bool = False) -> Object:
        """PUT: the whole object, or its status."""
        _check_kind(at, body)
        with self.changed:
            live = self._live(at)
            _check_version(at, live, body.get("metadata") or {})
            return self._update(at, body, manager, dry_run)

    def merge(self, at: Place, patch: Object, manager: str = "stand-in", dry_run: bool = False) -> Object:
        """A JSON merge patch (RFC 7386)."""
        with self.changed:
            live = self._live(at)
            _check_version(at, live, patch.get("metadata") or {})
            return self._update(at, merged(live, patch), manager, dry_run)

    def apply(self, at: Place, body: Object, manager: str, force: bool = False, dry_run: bool = False) -> Object:
        """Server-side apply: makes the object, or lays these fields over it."""
        _check_kind(at, body)
        meta = body.get("metadata") or {}
        if meta.get("managedFields"):
            raise bad("metadata.managedFields must be nil")
        if meta.get("name", at.name) != at.name:
            raise bad(f"the name of the object ({meta['name']}) does not match the name on the URL ({at.name})")
        if meta.get("namespace", at.namespace) != at.namespace:
            raise bad("the namespace of the provided object does not match the namespace sent on the request")
        with self.changed:
            live = self._objects.get(at.object)
            if at.subresource and not live:
                raise missing(str(at))
            given = {**body, "metadata": {**meta, "name": at.name}}
            given = _only_status(given) if at.subresource else _without_status(at, given)
            if live and meta.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
                raise conflict(str(at), f"uid mismatch: the provided object specified uid {meta['uid']}")
            _check_version(at, live, meta)
            by = ownership.Manager(manager, "Apply", at.resource.api_version, at.subresource)
            new = ownership.apply(live, given, fields.schema_of(at.resource), by, force, now())
            return self._keep("update" if live else "create", at.object, filled(at.resource, new), live, dry_run)

    def delete(self, at: Place, options: Object | None = None, dry_run: bool = False) -> Object:
        """Delete an object, and what it owns unless propagationPolicy is Orphan (of a Job: unless one is given)."""
        options = options or {}
        with self.changed:
            live = self._live(at)
            for key, value in (options.get("preconditions") or {}).items():
                if live["metadata"].get(key) != value:
                    raise conflict(str(at), f"Precondition failed: {key} in precondition: {value}")
            policy = options.get("propagationPolicy") or ("Orphan" if at.resource.kind == "Job" else "Background")
            if policy not in ("Orphan", "Background", "Foreground"):
                raise invalid("DeleteOptions", [f'propagationPolicy: Unsupported value: "{policy}"'])
            if not dry_run:
                self._remove(at, live, policy, options.get("gracePeriodSeconds"))
            details = {"name": at.name, "kind": at.resource.plural, "uid": live["metadata"]["uid"]}
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _update(self, at: Place, body: Object, manager: str, dry_run: bool) -> Object:
        live = self._live(at)
        meta = {**live["metadata"], **fields.owned(body).get("metadata", {})}
        for key in fields.owned(live).get("metadata", {}):
            if key not in (body.get("metadata") or {}):
                del meta[key]
        if at.subresource == "status":
            new = {**live, "status": body.get("status", {})}
        else:
            new = filled(at.resource, {**_without_status(at, body), "metadata": meta})
            if "status" in live and at.resource.kind in SUBRESOURCES["status"]:
                new["status"] = live["status"]
        new = ownership.update(live, new, fields.schema_of(at.resource), self._updater(at, manager), now())
        return self._keep("update", at.object, new, live, dry_run)

    def _keep(self, verb: str, key: Place, new: Object, live: Object | None, dry_run: bool) -> Object:
        new = self._stamp(key, new, live)
        if verb == "create" and key.namespace:
            if replace(key, resource=NAMESPACE, namespace="", name=key.namespace) not in self._objects:
                raise missing(f'namespaces "{key.namespace}"')
            quotas = self._beside(replace(key, resource=QUOTA))
            if over := exceeded(key, new, self._beside(key), quotas):
                raise over
        self.admission.check(verb, key, new, live)
        if verb == "create" and key.resource.kind in _BORN:
            new["status"] = dict(_BORN[key.resource.kind])
        if live and _content(new) == _content(live) and _owners(new) == _owners(live):
            return copied(live)
        return copied(new) if dry_run else self._commit(key, new, live)

    def _updater(self, at: Place, manager: str) -> ownership.Manager:
        return ownership.Manager(manager, "Update", at.resource.api_version, at.subresource)


def merged(live: object, patch: object) -> Object:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copied(patch)  # type: ignore[return-value]
    new = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


def _check_kind(at: Place, body: Object) -> None:
    said, named = (body.get("apiVersion"), body.get("kind")), (at.resource.api_version, at.resource.kind)
    if said != named:
        raise bad(f"the object is {said[1]} in {said[0]}, the path is of {named[1]} in {named[0]}")


def _without_status(at: Place, body: Object) -> Object:
    dropped = "status" if at.resource.kind in SUBRESOURCES["status"] else ""
    return {key: value for key, value in body.items() if key != dropped}


def _only_status(body: Object) -> Object:
    return {key: body[key] for key in ("apiVersion", "kind", "metadata", "status") if key in body}


def _check_version(at: Place, live: Object | None, meta: Mapping[str, str]) -> None:
    if live and meta.get("resourceVersion") and meta["resourceVersion"] != live["metadata"]["resourceVersion"]:
        raise conflict(str(at.object))


def _content(body: Object) -> Object:
    return {**body, "metadata": {key: value for key, value in body["metadata"].items() if key != "managedFields"}}


def _owners(body: Object) -> dict[ownership.Manager, set[fields.Path]]:
    """Without the times: a server does not keep a write that changes nothing else."""
    return {manager: owned.paths for manager, owned in ownership.read(body).items()}
