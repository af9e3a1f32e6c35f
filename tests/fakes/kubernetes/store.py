"""Store: the objects of a cluster; every change has a number."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus

from tests.fakes.kubernetes import fields, ownership
from tests.fakes.kubernetes.admission import Admission
from tests.fakes.kubernetes.refusal import Object, Refused, bad, conflict, invalid, missing
from tests.fakes.kubernetes.resources import NAMESPACE, SUBRESOURCES, Place, place, resource_of
from tests.fakes.kubernetes.selectors import matcher

_NO_GENERATION = ("Namespace", "Node", "ConfigMap", "Secret", "Service", "ServiceAccount", "Event", "Lease")


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to an object. type: ADDED, MODIFIED or DELETED; before: the object as it was."""

    version: int
    type: str
    at: Place
    body: Object
    before: Object | None


class Store:
    """Objects by what names them."""

    def __init__(self, namespaces: Sequence[str] = ("default",), *, schemas: bool = True) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[Place, Object] = {}
        self._version = 0
        self.log: list[Change] = []
        self.oldest = 0  # versions before this one have been compacted away
        self.admission = Admission(schemas=schemas)
        self.posted: list[Object] = []  # bodies as they came, in the order in which they were taken
        self.refused: list[str] = []  # "POST PATH: why"
        self.requests: list[str] = []  # "POST PATH?QUERY", answered or refused
        for name in namespaces:
            self.create(
                place("/api/v1/namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            )
        self.posted.clear()

    @property
    def version(self) -> int:
        return self._version

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
            new = {**_without_status(at, body), "metadata": dict(meta)}
            owned = ownership.update(None, new, fields.schema_of(at.resource), self._updater(at, manager), _now())
            made = self._keep("create", key, owned, None, dry_run)
            if not dry_run:
                self.posted.append(copy.deepcopy(body))
            return made

    def put(self, body: Object) -> Object:
        """Keep an object with its status, past admission: as controllers made it, or a state to start from."""
        at = place_of(body)
        with self.changed:
            before = self._objects.get(at)
            return self._commit(at, self._stamp(at, copy.deepcopy(body), before), before)

    def get(self, at: Place) -> Object:
        with self.changed:
            return copy.deepcopy(self._live(at))

    def list(self, at: Place, query: Mapping[str, str] | None = None) -> Object:
        """All of a kind; of one namespace where the path names one; those that the selectors take."""
        taken = matcher(query or {}, at.resource.kind)
        with self.changed:
            items = [
                copy.deepcopy(body)
                for key, body in sorted(self._objects.items(), key=lambda each: (each[0].namespace, each[0].name))
                if key.resource == at.resource and at.namespace in ("", key.namespace) and taken(body)
            ]
            said = {"apiVersion": at.resource.api_version, "kind": f"{at.resource.kind}List"}
            return {**said, "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def replace(self, at: Place, body: Object, manager: str = "stand-in", dry_run: bool = False) -> Object:
        """PUT: the whole object, or its status."""
        _check_kind(at, body)
        with self.changed:
            live = self._live(at)
            given = (body.get("metadata") or {}).get("resourceVersion")
            if given and given != live["metadata"]["resourceVersion"]:
                raise conflict(str(at.object))
            return self._update(at, body, manager, dry_run)

    def merge(self, at: Place, patch: Object, manager: str = "stand-in", dry_run: bool = False) -> Object:
        """A JSON merge patch (RFC 7386)."""
        with self.changed:
            live = self._live(at)
            given = (patch.get("metadata") or {}).get("resourceVersion")
            if given and given != live["metadata"]["resourceVersion"]:
                raise conflict(str(at.object))
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
            if (
                live
                and meta.get("resourceVersion", live["metadata"]["resourceVersion"])
                != live["metadata"]["resourceVersion"]
            ):
                raise conflict(str(at))
            by = ownership.Manager(manager, "Apply", at.resource.api_version, at.subresource)
            new = ownership.apply(live, given, fields.schema_of(at.resource), by, force, _now())
            return self._keep("update" if live else "create", at.object, new, live, dry_run)

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
                self._remove(at, live, policy)
            details = {"name": at.name, "kind": at.resource.plural, "uid": live["metadata"]["uid"]}
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _live(self, at: Place) -> Object:
        if found := self._objects.get(at.object):
            return found
        raise missing(str(at.object))

    def _update(self, at: Place, body: Object, manager: str, dry_run: bool) -> Object:
        live = self._live(at)
        meta = {**live["metadata"], **fields.owned(body).get("metadata", {})}
        for key in fields.owned(live).get("metadata", {}):
            if key not in (body.get("metadata") or {}):
                del meta[key]
        if at.subresource:
            new = {**live, "status": body.get("status", {})}
        else:
            new = {**_without_status(at, body), "metadata": meta}
            if "status" in live and at.resource.kind in SUBRESOURCES["status"]:
                new["status"] = live["status"]
        new = ownership.update(live, new, fields.schema_of(at.resource), self._updater(at, manager), _now())
        return self._keep("update", at.object, new, live, dry_run)

    def _keep(self, verb: str, key: Place, new: Object, live: Object | None, dry_run: bool) -> Object:
        if (
            verb == "create"
            and key.namespace
            and replace(key, resource=NAMESPACE, namespace="", name=key.namespace) not in self._objects
        ):
            raise missing(f'namespaces "{key.namespace}"')
        self.admission.check(verb, key, new, live)
        new = self._stamp(key, new, live)
        if (
            live
            and {**new, "metadata": {**new["metadata"], "managedFields": 0}}
            == {
                **live,
                "metadata": {**live["metadata"], "managedFields": 0},
            }
            and ownership.read(new) == ownership.read(live)
        ):
            return copy.deepcopy(live)
        return copy.deepcopy(new) if dry_run else self._commit(key, new, live)

    def _stamp(self, key: Place, new: Object, live: Object | None) -> Object:
        """What the server writes into metadata."""
        meta = dict(new["metadata"])
        if live:
            for name in ("uid", "creationTimestamp", "generation", "resourceVersion"):
                if name in live["metadata"]:
                    meta[name] = live["metadata"][name]
            if _spec(new) != _spec(live) and "generation" in meta:
                meta["generation"] += 1
        else:
            meta["uid"] = f"00000000-0000-4000-8000-{self._version + 1:012}"
            meta["creationTimestamp"] = _now()
            if key.resource.kind not in _NO_GENERATION:
                meta["generation"] = 1
        if key.namespace:
            meta["namespace"] = key.namespace
        return {**new, "metadata": meta}

    def _commit(self, key: Place, body: Object, before: Object | None) -> Object:
        self._version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        finished = body["metadata"].get("deletionTimestamp") and not body["metadata"].get("finalizers")
        if finished:
            self._objects.pop(key)
        else:
            self._objects[key] = body
        said = "DELETED" if finished else "MODIFIED" if before else "ADDED"
        self.log.append(Change(self._version, said, key, copy.deepcopy(body), before))
        self.changed.notify_all()
        return copy.deepcopy(body)

    def _remove(self, at: Place, live: Object, policy: str) -> None:
        meta = {**live["metadata"], "deletionTimestamp": live["metadata"].get("deletionTimestamp", _now())}
        self._commit(at, {**live, "metadata": meta}, live)
        uid = live["metadata"]["uid"]
        for key, body in list(self._objects.items()):
            owners = body["metadata"].get("ownerReferences", [])
            rest = [owner for owner in owners if owner["uid"] != uid]
            inside = at.resource == NAMESPACE and key.namespace == at.name
            if key not in self._objects or not (inside or len(rest) < len(owners)):
                continue
            if inside or (policy != "Orphan" and not rest):
                self._remove(key, body, "Background")
            else:
                self._commit(key, {**body, "metadata": {**body["metadata"], "ownerReferences": rest}}, body)

    def _updater(self, at: Place, manager: str) -> ownership.Manager:
        return ownership.Manager(manager, "Update", at.resource.api_version, at.subresource)


def place_of(body: Object) -> Place:
    """Where an object is kept; the namespace `default` where it names none."""
    resource = resource_of(body["apiVersion"], body["kind"])
    namespace = body["metadata"].get("namespace", "default") if resource.namespaced else ""
    return Place(resource, namespace, body["metadata"]["name"])


def merged(live: object, patch: object) -> Object:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)  # type: ignore[return-value]
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


def _spec(body: Object) -> Object:
    return {key: value for key, value in body.items() if key not in ("metadata", "status")}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
