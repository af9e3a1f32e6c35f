"""What stands before every stand-in of AWS: who calls what is written down, refused, throttled or cut off.

    gate = Gate(Throttle(3), Cut(at=7), allow=policy)

Faults count calls by themselves, over everything behind one gate, from 1; `operation` narrows what they count:
"CreateCluster" or "s3:PutObject", with * and ?.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tests.fakes.policy import Document, Policy

ACCOUNT, REGION = "111122223333", "us-east-2"
CALLER = f"arn:aws:iam::{ACCOUNT}:user/stand-in"


class Refused(Exception):
    """An error answer of the service."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


class Disconnected(Exception):
    """The connection ends here, without an answer."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a call asks of a policy."""

    action: str  # as IAM names it
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request as it came. `error` is the code it was refused with; "Disconnected" where nobody was told."""

    service: str  # as IAM names it: sagemaker, s3
    operation: str  # as the API names it: CreateCluster, ListObjectsV2
    request: dict[str, Any]
    needs: tuple[Need, ...]
    access_key: str = ""
    number: int = 0
    error: str = ""

    @property
    def resource(self) -> str:
        return self.needs[0].resource if self.needs else "*"

    def named(self, pattern: str) -> bool:
        """Whether a pattern names it: CreateCluster, sagemaker:CreateCluster, sagemaker:*."""
        name = f"{self.service}:{self.operation}" if ":" in pattern else self.operation
        return fnmatchcase(name, pattern)


class Fault:
    """Something that goes wrong on the way; raises Refused or Disconnected."""

    def before(self, call: Call) -> None:
        """Before the call has an effect."""

    def after(self, call: Call) -> None:
        """After its effect, before its answer."""


class Gate:
    """Writes calls down and lets through what faults and policy leave."""

    def __init__(self, *faults: Fault, allow: Document | Sequence[Document | str] | None = None) -> None:
        self.faults = list(faults)
        self.allow = allow
        self.calls: list[Call] = []
        self._lock = threading.Lock()

    def enter(self, call: Call) -> None:
        """Before the effect. Raises Refused or Disconnected."""
        with self._lock:
            self.calls.append(call)
            call.number = len(self.calls)
            for fault in self.faults:
                fault.before(call)
        if self.allow is not None:
            policy = Policy.of(self.allow)
            for need in call.needs:
                if not policy.allows(need.action, need.resource, need.context):
                    raise denied(call.service, need)

    def leave(self, call: Call) -> None:
        """After the effect. Raises Disconnected."""
        with self._lock:
            for fault in self.faults:
                fault.after(call)

    def named(self, pattern: str) -> list[Call]:
        """The calls that a pattern names, in order."""
        return [call for call in self.calls if call.named(pattern)]

    def actions(self) -> set[tuple[str, str]]:
        """Action and resource of everything that was asked for: what a policy has to allow."""
        return {(need.action, need.resource) for call in self.calls for need in call.needs}


# What services call the same thing; the others say ThrottlingException, AccessDeniedException, ExpiredTokenException.
_THROTTLED = {"s3": "SlowDown", "ec2": "RequestLimitExceeded", "iam": "Throttling", "sts": "Throttling"}
_DENIED = {"s3": "AccessDenied", "ec2": "UnauthorizedOperation", "iam": "AccessDenied", "sts": "AccessDenied"}
_EXPIRED = {"s3": "ExpiredToken", "iam": "ExpiredToken", "sts": "ExpiredToken", "ec2": "RequestExpired"}
_JSON = ("sagemaker", "servicequotas", "logs", "pricing")  # status 400 whatever it is


def denied(service: str, need: Need) -> Refused:
    """As `service` says it."""
    message = f"User: {CALLER} is not authorized to perform: {need.action}"
    message += f" on resource: {need.resource}" if need.resource != "*" else ""
    return Refused(
        _DENIED.get(service, "AccessDeniedException"),
        f"{message} because no identity-based policy allows the {need.action} action",
        status=400 if service in _JSON else 403,
    )


class _Counted(Fault):
    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.seen = 0

    def _counts(self, call: Call) -> bool:
        found = call.named(self.operation)
        self.seen += found
        return found


class Throttle(_Counted):
    """Refuses `times` calls, from the `at`-th on."""

    def __init__(self, times: int, operation: str = "*", at: int = 1) -> None:
        super().__init__(operation)
        self.times, self.at = times, at

    def before(self, call: Call) -> None:
        if self._counts(call) and self.at <= self.seen < self.at + self.times:
            code = _THROTTLED.get(call.service, "ThrottlingException")
            raise Refused(code, "Rate exceeded", 503 if call.service in ("s3", "ec2") else 400)


class Expire(_Counted):
    """The access key that makes the `at`-th call has expired then, and stays so; another key works."""

    def __init__(self, at: int, operation: str = "*") -> None:
        super().__init__(operation)
        self.at = at
        self.expired: set[str] = set()

    def before(self, call: Call) -> None:
        if self._counts(call) and self.seen == self.at:
            self.expired.add(call.access_key)
        if call.access_key in self.expired:
            code = _EXPIRED.get(call.service, "ExpiredTokenException")
            status = 400 if call.service in (*_JSON, "s3") else 403
            raise Refused(code, "The security token included in the request is expired", status)


class Fail(_Counted):
    """Refuses `times` calls with an error of the service's, from the `at`-th on."""

    def __init__(self, code: str, message: str = "", times: int = 1, operation: str = "*", at: int = 1) -> None:
        super().__init__(operation)
        self.code, self.message, self.times, self.at = code, message, times, at

    def before(self, call: Call) -> None:
        if self._counts(call) and self.at <= self.seen < self.at + self.times:
            status = 500 if self.code in ("InternalFailure", "InternalServerException", "InternalError") else 400
            raise Refused(self.code, self.message or "The request failed", status)


class Cut(_Counted):
    """Ends the connection of `times` calls without an answer, from the `at`-th on, before or after the effect.

    botocore tries again by itself: `times` has to outlast its attempts where the client is to notice. `do` is called
    first: the kill of a process, for one.
    """

    def __init__(
        self,
        at: int,
        operation: str = "*",
        *,
        after_effect: bool = False,
        times: int = 1,
        do: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(operation)
        self.at, self.after_effect, self.times, self.do = at, after_effect, times, do
        self._due: set[int] = set()

    def before(self, call: Call) -> None:
        if self._counts(call) and self.at <= self.seen < self.at + self.times:
            if not self.after_effect:
                self._cut()
            self._due.add(call.number)

    def after(self, call: Call) -> None:
        if call.number in self._due:
            self._cut()

    def _cut(self) -> None:
        if self.do:
            self.do()
        raise Disconnected
