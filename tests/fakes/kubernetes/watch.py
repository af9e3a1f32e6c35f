"""watch(store, …) → events of a kind, from a version on, until the time is over.

In order and without gaps. A version that the store no longer remembers is an ERROR event with 410 Expired, as a
server's watch cache says it. An object that comes into a selection is ADDED, one that leaves it DELETED.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from tests.fakes.kubernetes.refusal import Object, Refused, bad
from tests.fakes.kubernetes.resources import Place
from tests.fakes.kubernetes.selectors import matcher
from tests.fakes.kubernetes.state import Change
from tests.fakes.kubernetes.store import Store

_DEFAULT_S = 1800


def watch(store: Store, at: Place, query: Mapping[str, str], closing: Callable[[], bool]) -> Iterator[Object]:
    """Events as {type, object}. Raises Refused (400) for what cannot be read."""
    taken = matcher(query, at.resource.kind)
    since, ends_s = _whole(query, "resourceVersion", 0), time.monotonic() + _whole(query, "timeoutSeconds", _DEFAULT_S)
    return _events(store, at, query, taken, since, ends_s, closing)


def _events(
    store: Store,
    at: Place,
    query: Mapping[str, str],
    taken: Callable[[Object], bool],
    since: int,
    ends_s: float,
    closing: Callable[[], bool],
) -> Iterator[Object]:
    with store.changed:
        oldest, version = store.oldest, store.version
        there = store.list(at, {**query, "limit": ""})["items"] if since == 0 else []
    if 0 < since < oldest:
        yield {
            "type": "ERROR",
            "object": Refused(410, "Expired", f"too old resource version: {since} ({version})").body(),
        }
        return
    yield from ({"type": "ADDED", "object": body} for body in there)
    since = since or version
    while True:
        with store.changed:
            while not (new := [each for each in store.log if each.version > since]):
                left_s = ends_s - time.monotonic()
                if left_s <= 0 or closing():
                    return
                store.changed.wait(left_s)
            since = new[-1].version
        for each in new:
            if each.at.resource == at.resource and at.namespace in ("", each.at.namespace):
                yield from _told(each, taken)


def _told(change: Change, taken: Callable[[Object], bool]) -> Iterator[Object]:
    was = change.before is not None and taken(change.before)
    now = change.type != "DELETED" and taken(change.body)
    if was or now:
        said = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
        yield {"type": said, "object": change.body}


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    given = query.get(name) or str(default)
    if not given.isdigit():
        raise bad(f'{name}: Invalid value: "{given}"')
    return int(given)
