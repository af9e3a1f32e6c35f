"""Cause: why something of a deployment does not get on; Seen: what is looked at to tell; Sign: words that tell it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

Object = Mapping[str, Any]
# (namespace, pod, container, whether of the container before this one) → its last log lines
LastLines = Callable[[str, str, str, bool], Sequence[str]]


class Stage(IntEnum):
    """How far a thing came. What stopped first is told first: nothing after it gets better while it lasts."""

    REFUSED = 0  # the API took no object
    UNMADE = 1  # a controller makes no pods of it
    UNPLACED = 2  # no node has the pod
    UNSTARTED = 3  # image, volumes, configuration
    ENDED = 4  # it ran, and ended
    UNREADY = 5  # it runs, and does not serve
    FOLLOWS = 6  # from something else, most likely


@dataclass(frozen=True, slots=True)
class Cause:
    """objects: "kind namespace/name" of each that it holds back. what: in short, with values. why: the cluster's own
    words, and what they leave out. fix: what to try. log: last lines of the first one's container, where they tell."""

    stage: Stage
    objects: tuple[str, ...]
    what: str
    why: str
    fix: str
    log: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """As it is shown."""
        more = f" and {len(self.objects) - 3} more" if len(self.objects) > 3 else ""
        return [
            f"{', '.join(self.objects[:3])}{more}: {self.what}",
            *([f"    why: {self.why}"] if self.why else []),
            f"    try: {self.fix}",
            *(["    last lines of its log:"] if self.log else []),
            *(f"      {line}" for line in self.log),
        ]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the cluster says, as the API gives it.

    objects: those that were applied, as they are now, and what controllers made of them: ReplicaSets, StatefulSets,
    HorizontalPodAutoscalers, PersistentVolumeClaims, Kueue's Workloads. pods, events: of their namespaces.
    """

    objects: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    nodes: Sequence[Object] = ()

    def of(self, body: Object, *reasons: str) -> list[Object]:
        """The events of an object with one of these reasons, the oldest first."""
        kind, meta = body.get("kind", "Pod"), body["metadata"]
        found = []
        for event in self.events:
            about = event.get("involvedObject", {})
            uid, other = meta.get("uid"), about.get("uid")
            if (about.get("kind"), about.get("namespace"), about.get("name")) != (
                kind,
                meta.get("namespace"),
                meta["name"],
            ):
                continue
            if event.get("reason") in reasons and not (uid and other and uid != other):
                found.append(event)
        return sorted(found, key=_time)

    def said(self, body: Object, *reasons: str) -> str:
        """What the newest of these events says; empty without one."""
        return " ".join(str([{}, *self.of(body, *reasons)][-1].get("message", "")).split())


def _time(event: Object) -> str:
    series = event.get("series") or {}
    made = event.get("metadata", {}).get("creationTimestamp")
    return str(event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime") or made or "")


@dataclass(frozen=True, slots=True)
class Sign:
    """Words in a message (a regular expression) → what they mean, and what to try; both may name its groups."""

    words: str
    what: str
    fix: str


def read(signs: Sequence[Sign], message: str) -> Sign | None:
    """The first sign in the message, its groups filled in."""
    for sign in signs:
        if found := re.search(sign.words, message):
            groups = {name: value or "" for name, value in found.groupdict().items()}
            return Sign(sign.words, sign.what.format(**groups), sign.fix.format(**groups))
    return None


def name(body: Object, kind: str = "") -> str:
    """An object as it is called in a cause. The API leaves out the kind of what it lists."""
    meta = body["metadata"]
    place = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"{kind or body.get('kind', 'Pod')} {place}{meta['name']}"


def condition(body: Object, kind: str) -> Object:
    """A condition of an object's status; empty where it has none of that type."""
    found = [one for one in body.get("status", {}).get("conditions", ()) if one.get("type") == kind]
    return found[0] if found else {}


def ready(body: Object) -> bool:
    """Whether a pod, or a node, says so of itself."""
    return condition(body, "Ready").get("status") == "True"


def told(said: Object) -> str:
    """A condition, or the state of a container, in its own words."""
    reason, message = said.get("reason", ""), " ".join(str(said.get("message", "")).split())
    return ": ".join(part for part in (str(reason), message) if part)
