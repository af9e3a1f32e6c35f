"""Trial: a command of hyperpd, run with the policy that hyperpd iam prints for it, and nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import certifi
import pytest

from hyperpd.cluster import load
from hyperpd.cluster.actions import COMMANDS, Grant
from hyperpd.cluster.blueprint import blueprint
from hyperpd.cluster.names import Place
from hyperpd.cluster.permissions import Scope, policy
from tests.cluster.files import written
from tests.fakes.aws import Aws
from tests.fakes.gate import ACCOUNT, CALLER, REGION, Call, Need
from tests.fakes.policy import Policy

PLACE = Place(ACCOUNT, REGION)
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")


def worn(document: Any) -> Any:
    """As IAM reads it for the stand-in's user: the fakes know no variables."""
    return json.loads(json.dumps(document).replace("${aws:username}", CALLER.rpartition("/")[2]))


class Trial:
    """One command, run with what is printed for it and nothing else."""

    def __init__(self, command: str, run: Any, start: Any, folder: Path, patched: pytest.MonkeyPatch) -> None:
        self.patched = patched
        self.command, self._run, self._start, self.folder = command, run, start, folder
        self.used: list[tuple[Scope, list[Need]]] = []

    def account(self, *faults: Any, **given: Any) -> Any:
        return self._start(*faults, **given)

    def file(self, document: dict[str, Any], **change: Any) -> Path:
        return written(self.folder, document, **change)

    def run(self, aws: Aws, scope: Scope, *argv: object, code: int = 0) -> list[Call]:
        """Its calls; none of them was denied."""
        before = len(aws.calls)
        aws.gate.allow = worn(policy([self.command], scope))
        got, shown, said = self._run(*self.command.split(), *argv)
        aws.gate.allow = None
        calls = aws.calls[before:]
        denied = [f"{call.service}:{call.operation} {call.needs}" for call in calls if call.error in DENIED]
        assert not denied, "\n".join(denied)
        assert got == code, shown + said
        assert calls
        self.used.append((scope, [need for call in calls for need in call.needs]))
        return calls

    def unused(self) -> list[Grant]:
        """Grants that no run used."""
        return [grant for grant in COMMANDS[self.command] if not any(self._uses(grant, *one) for one in self.used)]

    def _uses(self, grant: Grant, scope: Scope, needs: list[Need]) -> bool:
        resources = worn(scope.resources(grant.on))
        allowed = Policy.of({"Statement": {"Effect": "Allow", "Action": grant.action, "Resource": resources}})
        return any(allowed.allows(need.action, need.resource) for need in needs)


def in_kubernetes(aws: Aws, url: str) -> None:
    """The EKS cluster's API server is at `url`."""
    authority = base64.b64encode(certifi.contents().encode()).decode()  # any: it is asked without TLS
    found = {"endpoint": url, "status": "ACTIVE", "certificateAuthority": {"data": authority}}
    aws.eks.clusters["prod"] |= found


def of(path: Path) -> Scope:
    """The scope of a file."""
    spec = load(path)
    return Scope(PLACE, spec.name, blueprint(spec, PLACE))
