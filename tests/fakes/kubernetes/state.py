"""State: the objects of a cluster by what names them, and every change to them with its number."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from tests.fakes.kubernetes.refusal import Object, Refused, bad, missing
from tests.fakes.kubernetes.resources import NAMESPACE, Place, resource_of
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


class State:
    """What a cluster keeps. `changed` guards it, and is told of every change."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[Place, Object] = {}
        self._version = 0
        self.log: list[Change] = []
        self.oldest = 0  # versions before this one have been compacted away
        self.kubelets = False  # whether a pod on a node stays, once deleted, until `finish`
        self.logs: dict[tuple[str, str, str], list[str]] = {}  # (namespace, pod, container) → lines
        self.previous_logs: dict[tuple[str, str, str], list[str]] = {}  # of the run before the last restart

    @property
    def version(self) -> int:
        return self._version

    def put(self, body: Object) -> Object:
        """Keep an object with its status, past admission: as controllers made it, or a state to start from."""
        at = place_of(body)
        with self.changed:
            before = self._objects.get(at)
            return self._commit(at, self._stamp(at, copied(body), before), before)

    def has(self, at: Place) -> bool:
        with self.changed:
            return at.object in self._objects

    def get(self, at: Place) -> Object:
        with self.changed:
            return copied(self._live(at))

    def list(self, at: Place, query: Mapping[str, str] | None = None) -> Object:
        """All of a kind; of one namespace where the path names one; those that the selectors take; by `limit` in pages
        of what is there when a page is asked for."""
        query = query or {}
        taken = matcher(query, at.resource.kind)
        with self.changed:
            after = self._after(query.get("continue", ""))
            found = sorted(
                (key.namespace, key.name, body)
                for key, body in self._objects.items()
                if key.resource == at.resource and at.namespace in ("", key.namespace) and taken(body)
                if (key.namespace, key.name) > after
            )
            said = {"apiVersion": at.resource.api_version, "kind": f"{at.resource.kind}List"}
            meta = {"resourceVersion": str(self._version)}
            limit = int(query.get("limit") or 0)
            if 0 < limit < len(found):
                found = found[:limit]
                token = json.dumps([self._version, *found[-1][:2]]).encode()
                meta["continue"] = base64.urlsafe_b64encode(token).decode()
            return {**said, "metadata": meta, "items": [copied(body) for _, _, body in found]}

    def find(self, uid: str) -> Object | None:
        """The object with this uid."""
        with self.changed:
            return next((copied(one) for one in self._objects.values() if one["metadata"]["uid"] == uid), None)

    def compact(self) -> None:
        """Forget every change until now: whoever asks from an earlier version is told that it is gone."""
        with self.changed:
            self.oldest = self._version
            self.log.clear()

    def finish(self, at: Place) -> None:
        """A node has ended a pod that was deleted."""
        with self.changed:
            live = self._live(at)
            self._commit(at, {**live, "metadata": {**live["metadata"], "deletionGracePeriodSeconds": 0}}, live)

    def write_log(self, at: Place, container: str, *lines: str) -> None:
        """More lines of a container; who follows its log reads them."""
        with self.changed:
            self.logs.setdefault((at.namespace, at.name, container), []).extend(lines)
            self.changed.notify_all()

    def _after(self, token: str) -> tuple[str, str]:
        if not token:
            return ("", "")
        try:
            version, namespace, name = json.loads(base64.urlsafe_b64decode(token))
        except ValueError as error:
            raise bad(f"continue key is not valid: {error}") from error
        if version < self.oldest:
            raise Refused(HTTPStatus.GONE, "Expired", "The provided continue parameter is too old")
        return namespace, name

    def _live(self, at: Place) -> Object:
        if found := self._objects.get(at.object):
            return found
        raise missing(str(at.object))

    def _beside(self, key: Place) -> Sequence[Object]:
        return [
            body
            for other, body in self._objects.items()
            if (other.resource, other.namespace) == (key.resource, key.namespace)
        ]

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
            meta["creationTimestamp"] = now()
            if key.resource.kind not in _NO_GENERATION:
                meta["generation"] = 1
        if key.namespace:
            meta["namespace"] = key.namespace
        return {**new, "metadata": meta}

    def _commit(self, key: Place, body: Object, before: Object | None) -> Object:
        self._version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        meta = body["metadata"]
        finished = meta.get("deletionTimestamp") and not meta.get("finalizers") and not self._ends_later(key, body)
        if finished:
            self._objects.pop(key)
        else:
            self._objects[key] = body
        said = "DELETED" if finished else "MODIFIED" if before else "ADDED"
        self.log.append(Change(self._version, said, key, copied(body), before))
        self.changed.notify_all()
        return copied(body)

    def _ends_later(self, key: Place, body: Object) -> bool:
        """Whether a deleted pod is still being ended by its node."""
        on_node = key.resource.kind == "Pod" and self.kubelets and body["spec"].get("nodeName")
        return bool(on_node and body["metadata"].get("deletionGracePeriodSeconds", 0))

    def _remove(self, at: Place, live: Object, policy: str, grace_s: int | None = None) -> None:
        meta = {**live["metadata"], "deletionTimestamp": live["metadata"].get("deletionTimestamp", now())}
        if at.resource.kind == "Pod":
            default_s = live["spec"].get("terminationGracePeriodSeconds", 30)
            meta["deletionGracePeriodSeconds"] = default_s if grace_s is None else grace_s
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


def place_of(body: Object) -> Place:
    """Where an object is kept; the namespace `default` where it names none."""
    resource = resource_of(body["apiVersion"], body["kind"])
    namespace = body["metadata"].get("namespace", "default") if resource.namespaced else ""
    return Place(resource, namespace, body["metadata"]["name"])


def _spec(body: Object) -> Object:
    return {key: value for key, value in body.items() if key not in ("metadata", "status")}


def copied(value: Any) -> Any:
    """A copy of an object in JSON's terms; several times faster than copy.deepcopy."""
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    return [copied(each) for each in value] if isinstance(value, list) else value


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
