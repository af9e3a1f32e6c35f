"""Reading: asks AWS for facts. What cannot be read becomes an unknown finding that names the permission, never a crash.

Answers are None where nothing could be read, {} where there is no such thing, else what AWS said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hyperpd.cluster.aws import MISSING, Aws
from hyperpd.cluster.preflight.caller import Caller
from hyperpd.cluster.preflight.finding import Finding, unknown
from hyperpd.errors import CloudError

Object = dict[str, Any]
# Where boto3's word for a call is not IAM's.
_SERVICES = {"service-quotas": "servicequotas"}
_ACTIONS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
}
_GONE = (*MISSING, "NoSuchKey", "NoSuchResourceException")
_TOKENS = (("NextToken", "NextToken"), ("nextToken", "nextToken"), ("Marker", "Marker"))


class Reading:
    """One account, read for one plan."""

    def __init__(self, aws: Aws, caller: Caller) -> None:
        self.aws = aws
        self.caller = caller
        self._unread: dict[tuple[str, str], list[str]] = {}  # (action, code) → what was not checked
        self._said: dict[tuple[str, str], str] = {}

    def ask(self, purpose: str, service: str, operation: str, **parameters: Any) -> Object | None:
        """One call. purpose: what stays unchecked where it fails, for "… could not be checked"."""
        try:
            return self.aws.call(service, operation, **parameters)
        except CloudError as error:
            if error.code in _GONE:
                return {}
            self.note(purpose, action(service, operation), error)
            return None

    def pages(self, purpose: str, service: str, operation: str, key: str, **parameters: Any) -> list[Any] | None:
        """What `key` lists, on all pages; None where a page could not be read."""
        found: list[Any] = []
        token: Object = {}
        while True:
            answer = self.ask(purpose, service, operation, **parameters, **token)
            if answer is None:
                return None
            found += answer.get(key, ())
            token = next(({sent: answer[got]} for got, sent in _TOKENS if answer.get(got)), {})
            if not token:
                return found

    def note(self, purpose: str, needed: str, error: CloudError) -> None:
        """Remember what could not be read."""
        known = (needed, error.code)
        purposes = self._unread.setdefault(known, [])
        if purpose not in purposes:
            purposes.append(purpose)
        self._said[known] = str(error)

    def unread(self, reads: Sequence[Object]) -> Iterator[Finding]:
        """An unknown finding for all actions that were refused, and one for each that failed. reads: the statements
        that allow every read of a plan."""
        refused = {needed: purposes for (needed, code), purposes in self._unread.items() if denied(code)}
        if refused:
            purposes = list(dict.fromkeys(purpose for each in refused.values() for purpose in each))
            what = f"{_and(purposes)} could not be checked: no permission for {_and(sorted(refused))}"
            # All that is read: a policy of the same name that has the missing ones alone would take others back.
            yield unknown("permission", what, self.caller.place, self.caller.grant(reads, "hyperpd-plan"))
        for (needed, code), purposes in self._unread.items():
            if not denied(code):
                what = f"{_and(purposes)} could not be checked: {needed}: {code}"
                said = self._said[needed, code].partition("\n")
                yield unknown("reading", what, said[0], said[2] or "run it again; a proxy or a VPN may be in the way")


def denied(code: str) -> bool:
    """Whether an error code says that a permission is missing."""
    return "AccessDenied" in code or code in ("UnauthorizedOperation", "403")


def action(service: str, operation: str) -> str:
    """IAM's word for a call of boto3: ("service-quotas", "list_service_quotas") → servicequotas:ListServiceQuotas."""
    named = f"{_SERVICES.get(service, service)}:{''.join(part.capitalize() for part in operation.split('_'))}"
    named = named.replace("ListAwsDefault", "ListAWSDefault")
    return _ACTIONS.get(named, named)


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
