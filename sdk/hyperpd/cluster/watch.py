"""Waiting for a cluster: what moves is told, what failed is explained, and no wait is longer than it was allowed.

AWS has no waiter for clusters. This one ends well when the cluster is in service with its nodes; a cluster that is
InService without any is not. Events are shown as they come where the cluster has them (continuous: true).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from hyperpd.cluster import reader
from hyperpd.cluster.aws import EXPIRED, THROTTLED, Aws
from hyperpd.cluster.causes import explain
from hyperpd.cluster.command import command
from hyperpd.cluster.names import Names
from hyperpd.cluster.progress import Happened, Seen, Step, Tell
from hyperpd.cluster.state import Event, Status
from hyperpd.errors import CloudError, NotReady

T = TypeVar("T")
POLL_S = 15.0
TIMEOUT_S = 11_700.0  # HyperPod gives a group 3 h for its min_count (botocore 1.44); a quarter of an hour more
# Minutes, from and to, of field reports; AWS gives none.
TYPICAL_MIN = {"create": (15, 25), "reboot": (1, 3), "replace": (20, 30), "patch": (30, 60)}
_DOING = {"Creating": "create", "SystemUpdating": "patch"}
UNSEEN_S = 120.0  # how long what was just sent may not be seen: an allowance, nothing AWS says


@dataclass
class Wait:
    """One wait. `new`: the cluster was created a moment ago, so DescribeCluster may not know it yet. `doing`: what is
    waited for, a key of TYPICAL_MIN, where the cluster's status does not say it."""

    aws: Aws
    names: Names
    tell: Tell
    timeout_s: float = TIMEOUT_S
    poll_s: float = POLL_S
    new: bool = False
    doing: str = ""
    _began: float = field(default_factory=time.monotonic)
    _line: str = ""
    _status: Status | None = None
    _moved: bool = False  # whether something was seen to happen
    _after: datetime | None = None
    _told: set[str] = field(default_factory=set)

    def ready(self, expect: Mapping[str, int] | None = None) -> Status:
        """In service with its nodes; `expect`: the nodes that an update asked for, by group.

        Raises NotReady with the causes when it failed, rolled back or took too long, CloudError.
        """
        first = True
        while True:
            status = self._look(self._read)
            if status is None:
                if not (self.new and self._elapsed_s < UNSEEN_S):
                    raise CloudError(
                        f"there is no cluster {self.names.cluster} in {self.names.place.region}",
                        code="ResourceNotFound",
                    )
                self._pause("created, and not seen yet")
                continue
            if first and status.ready and not self.new:
                self._begin_after(status)
            first = False
            self._show(status)
            events = self._look(partial(self._events, status)) or []
            self._judge(status, events, expect or {})
            if status.ready and self._as_expected(status, expect or {}):
                return status
            self._pause()

    def begun(self, group: str) -> None:
        """Something happens to a group; or AWS had its time to begin. Raises NotReady, CloudError."""
        while True:
            status = self._look(self._read)
            found = status.group(group) if status else None
            quiet = status is not None and found is not None and status.status == found.status == "InService"
            if not quiet or self._elapsed_s > UNSEEN_S:
                return
            self._pause("sent, and not begun yet")

    def left(self, wanted: str) -> Status | None:
        """Any status other than `wanted`; None where the cluster is gone. Raises NotReady, CloudError."""
        while True:
            status = self._look(self._read)
            if status is None or status.status != wanted:
                return status
            self._show(status)
            self._pause()

    def whole(self, groups: Collection[str], replaced: Collection[str]) -> None:
        """These groups have all their nodes, healthy, and nodes of ids `replaced` are away; or nothing began in AWS'
        time for it. Raises NotReady, CloudError."""
        moved = False
        while True:
            status = self._look(self._read)
            if status is None:
                raise NotReady(f"{self.names.cluster} is gone")
            self._show(status)
            found = self._look(partial(reader.nodes, self.aws, status)) or []
            nodes = [node for node in found if node.group in groups]
            healthy = sum(node.healthy for node in nodes)
            wanted = sum(group.target for group in status.groups if group.name in groups)
            moved = moved or healthy < wanted or self._elapsed_s > UNSEEN_S
            if moved and healthy >= wanted and not any(node.id in replaced for node in nodes):
                return
            self._pause()

    def gone(self) -> None:
        """Deleted. Raises NotReady, also where AWS gave the deletion up, CloudError."""
        while status := self._look(self._read):
            self._show(status)
            if status.status != "Deleting" and self._elapsed_s > UNSEEN_S:
                self._fail(status, f"{status.name} was not deleted, and is {status.status}")
            self._pause()

    def _read(self) -> Status | None:
        return reader.status(self.aws, self.names.cluster)

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _look(self, read: Callable[[], T]) -> T | None:
        """A read that survives throttling; expired credentials say how to go on."""
        while True:
            try:
                return read()
            except CloudError as error:
                if error.code in THROTTLED:
                    self._pause("AWS throttles the calls")
                    continue
                if error.code in EXPIRED:
                    raise CloudError(
                        f"{error}\nThe cluster goes on without you; {self._where()}.\nThen: {self._again()}",
                        operation=error.operation,
                        code=error.code,
                    ) from None
                raise

    def _begin_after(self, status: Status) -> None:
        """Events before the wait are old news where the cluster was well."""
        if events := reader.events(self.aws, status):
            self._after = events[-1].time
            self._told |= {event.id for event in events}

    def _events(self, status: Status) -> list[Event]:
        found = [event for event in reader.events(self.aws, status, after=self._after) if event.id not in self._told]
        for event in found:
            self._told.add(event.id)
            self.tell(Happened(event))
        if found:  # some come late: a minute is read twice
            self._after = found[-1].time - timedelta(minutes=1)
        return found

    def _show(self, status: Status) -> None:
        self._status = status
        self._moved = self._moved or status.status != "InService"
        if status.line() != self._line:
            self._line = status.line()
            doing = self.doing or _DOING.get(status.status, "")
            self.tell(Seen(status, self._elapsed_s, TYPICAL_MIN.get(doing)))

    def _judge(self, status: Status, events: list[Event], expect: Mapping[str, int]) -> None:
        """Raises NotReady where waiting has no point."""
        name = status.name
        if status.status in ("Failed", "RollingBack"):
            self._fail(status, f"{name} is {status.status}")
        if status.status == "Deleting":
            self._fail(status, f"{name} is being deleted")
        if failed := [group.name for group in status.groups if group.status == "Failed"]:
            self._fail(status, f"{name}: {', '.join(failed)} failed")
        for event in events:
            if event.level == "Error" and event.what == "Instance":
                said = self._look(partial(reader.details, self.aws, status, event)) or {}
                if said.get("LcsExecutionState") == "Failed":
                    # A script that fails on one node fails on the next; HyperPod would try for ever.
                    self._fail(status, f"{name}: the lifecycle script of {event.group}/{event.node} failed")
        missed = status.status == "InService" and not self._as_expected(status, expect)
        if missed and (self._moved or self._elapsed_s > UNSEEN_S):
            self._fail(status, f"{name} rolled back: {self._differs(status, expect)}")

    def _as_expected(self, status: Status, expect: Mapping[str, int]) -> bool:
        return not self._differs(status, expect)

    def _differs(self, status: Status, expect: Mapping[str, int]) -> str:
        found = {name: status.group(name) for name in expect}
        return ", ".join(
            f"{name} was asked for {expect[name]} nodes, and wants {group.target if group else 'none'}"
            for name, group in found.items()
            if group is None or group.target != expect[name]
        )

    def _fail(self, status: Status, what: str) -> None:
        raise NotReady("\n".join([f"{what} after {duration(self._elapsed_s)}", status.line(), *self._causes(status)]))

    def _causes(self, status: Status) -> list[str]:
        try:
            return explain(self.aws, self.names, status)
        except CloudError as error:
            return [f"the causes cannot be read: {error}"]

    def _pause(self, why: str = "") -> None:
        if why and why != self._line:
            self._line = why
            self.tell(Step(why))
        if self._elapsed_s + self.poll_s > self.timeout_s:
            lines = [f"{self.names.cluster} is not ready after {duration(self._elapsed_s)}: {self._where()}"]
            lines += self._causes(self._status) if self._status else []
            lines.append(f"Nothing was undone; go on with {self._again()}")
            raise NotReady("\n".join(lines))
        time.sleep(self.poll_s)

    def _again(self) -> str:
        return command("watch", self.names.cluster, self.names.place.region)

    def _where(self) -> str:
        return f"last seen: {self._status.line()}" if self._status else "it was not seen yet"


def duration(seconds: float) -> str:
    """As people say it: 45 s, 3 min, 1 h 05 min."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60):02d} s" if minutes else f"{int(seconds)} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
