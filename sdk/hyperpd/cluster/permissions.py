"""policy(commands, scope) → the smallest IAM policy with which its holder runs these commands. Pure.

Resources are as narrow as AWS takes them. A cluster's ARN has an id that comes with its creation, not its name: until
it is known, the policy names every cluster of the account and Region.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperpd.cluster.actions import COMMANDS, Grant, Kind
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.names import Names, Place
from hyperpd.errors import RecipeError

Object = dict[str, Any]
ANY = "*"
_SAGEMAKER = "sagemaker.amazonaws.com"
# Karpenter's role trusts the second; which of them iam:PassedToService is: unverified.
_SCALER = ["hyperpod.sagemaker.amazonaws.com", _SAGEMAKER]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a policy is for: one cluster or any; `plan`: its file, None where there is none to go by."""

    place: Place
    cluster: str = ANY
    plan: Blueprint | None = None
    cluster_id: str = ANY  # the end of the cluster's ARN
    s3: str = ""  # s3://BUCKET/PREFIX of hub publish and image mirror; without it their S3 is left out
    hub: str = ANY
    holder: str = ""  # name of the role that gets the policy; empty: a user does
    endpoint: str = ANY  # at SageMaker

    def resources(self, kind: Kind) -> list[str]:
        """ARNs; none where this cluster has no such thing."""
        return list(dict.fromkeys(self._resources(kind)))

    def _resources(self, kind: Kind) -> Sequence[str]:
        plan = self.plan
        on_eks = plan is None or plan.spec.orchestrator.kind == "eks"
        match kind:
            case "everything":
                return ["*"]
            case "cluster":
                return [self._arn("sagemaker", f"cluster/{self.cluster_id}")]
            case "clusters":
                return [self._arn("sagemaker", "cluster/*")]
            case "training plans":
                if plan is None:
                    return [self._arn("sagemaker", "training-plan/*")]
                return [group.training_plan for group in plan.groups.values() if group.training_plan]
            case "secret":
                if plan is None:
                    return [self._arn("secretsmanager", "secret:*")]
                return [plan.accounting_secret] if plan.accounting_secret else []
            case "eks":
                return [plan.eks_arn if plan else self._arn("eks", "cluster/*")] if on_eks else []
            case "eks clusters":
                return ["*"] if on_eks else []
            case "add-ons":
                name = plan.eks_arn.rpartition("/")[2] if plan and on_eks else ANY
                return [self._arn("eks", f"addon/{name}/*/*")] if on_eks else []
            case "made role":
                return [self._role] if plan is None or plan.makes_role else []
            case "its role":
                return [self._role]
            case "roles":
                return [plan.role_arn(group) for group in plan.groups.values()] if plan else [self._role]
            case "scaler":
                return [plan.spec.autoscaling.role] if plan and plan.spec.autoscaling else []
            case "callers":
                return self._looked_up()
            case "log":
                return [self._arn("logs", f"log-group:{self._names.logs}*")]
            case "log streams":
                return [self._arn("logs", f"log-group:{self._names.logs}*:log-stream:*")]
            case "stacks":
                return [self._arn("cloudformation", "stack/*/*")]
            case "hub":
                return [self._arn("sagemaker", f"hub/{self.hub}")]
            case "hub contents":
                return [self._arn("sagemaker", f"hub-content/{self.hub}/*")]
            case "endpoint":
                return [self._arn("sagemaker", f"endpoint/{self.endpoint.lower()}")]  # ARNs have names in lower case
            case _:
                return self._s3(kind)

    def _looked_up(self) -> list[str]:
        """Roles that the file names, any where there is none; and whoever holds the policy, whatever its path."""
        iam = f"arn:{self.place.partition}:iam::{self.place.account}:"
        own = f"role/{{}}{self.holder}" if self.holder else "user/{}${{aws:username}}"
        held = [iam + own.format(path) for path in ("", "*/")]
        if self.plan is None:
            return [f"{iam}role/*", *held]
        return sorted({*self.resources("roles"), *self.resources("scaler")}) + held

    def _s3(self, kind: Kind) -> list[str]:
        plan, folder = self.plan, f"{self._names.prefix}/*"
        given, _, prefix = self.s3.removeprefix("s3://").partition("/")
        inside = f"{prefix.strip('/')}/*".lstrip("/")
        sources = {plan.lifecycle(group).source for group in plan.groups.values()} if plan else set()
        read = sorted(one.removeprefix("s3://").rstrip("/") for one in sources if one.startswith("s3://"))
        uploaded = [plan.bucket] if plan and plan.scripts else [] if plan else [self._bucket]
        found: Mapping[str, list[str]] = {
            "bucket": uploaded,
            "made bucket": [self._bucket] if plan is None or plan.makes_bucket else [],
            "its bucket": [self._bucket],
            "files": [f"{one}/{folder}" for one in uploaded],
            "its files": [f"{one}/{folder}" for one in (self._bucket, *uploaded)],
            "read bucket": [one.partition("/")[0] for one in read],
            "read files": [f"{one}/*" for one in read],
            "s3 bucket": [given] if given else [],
            "s3 files": [f"{given}/{inside}"] if given else [],
        }
        return [f"arn:{self.place.partition}:s3:::{one}" for one in found[kind]]

    @property
    def _names(self) -> Names:
        return Names(self.cluster, self.place)

    @property
    def _role(self) -> str:
        if self.cluster == ANY:
            return f"arn:{self.place.partition}:iam::{self.place.account}:role/hyperpd-*"
        return self._names.role_arn

    @property
    def _bucket(self) -> str:
        if self.cluster == ANY:
            return f"sagemaker-hyperpd-{self.place.account}-{self.place.region}-*"
        return self._names.bucket

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:{self.place.partition}:{service}:{self.place.region}:{self.place.account}:{resource}"


@dataclass(frozen=True, slots=True)
class Permission:
    """An action on resources; `why`: one reason for each use."""

    action: str
    resources: tuple[str, ...]
    condition: Mapping[str, Any]
    why: tuple[str, ...]
    optional: bool  # whether all of these uses are


def command(words: Sequence[str]) -> str:
    """The command that is meant. Raises RecipeError where none of that name calls AWS."""
    name = " ".join(words)
    if name in COMMANDS:
        return name
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"commands that do: {', '.join(COMMANDS)}"
    raise RecipeError("hyperpd iam", [f"{name}: no such command calls AWS; {hint}"])


def unplaced(commands: Iterable[str], scope: Scope) -> list[str]:
    """Commands with files in a bucket that `scope` does not name."""
    if scope.s3:
        return []
    return [name for name in commands if any(grant.on in ("s3 bucket", "s3 files") for grant in COMMANDS[name])]


def permissions(commands: Iterable[str], scope: Scope) -> list[Permission]:
    """What the commands need, each action once for the same resources."""
    found: dict[tuple[str, tuple[str, ...]], list[Grant]] = {}
    for name in commands:
        for grant in COMMANDS[name]:
            if resources := scope.resources(grant.on):
                found.setdefault((grant.action, tuple(resources)), []).append(grant)
    return [
        Permission(
            action,
            resources,
            _condition(grants[0]),
            tuple(dict.fromkeys(one.why for one in grants)),
            all(one.optional for one in grants),
        )
        for (action, resources), grants in sorted(found.items())
    ]


def policy(commands: Iterable[str], scope: Scope, *, optional: bool = True) -> Object:
    """The policy document: a statement for all actions on the same resources. optional: with what commands go on
    without, too."""
    merged: dict[tuple[tuple[str, ...], str], list[Permission]] = {}
    for one in permissions(commands, scope):
        if one.optional and not optional:
            continue
        merged.setdefault((one.resources, repr(one.condition)), []).append(one)
    statements = []
    for (resources, _), several in merged.items():
        statement: Object = {
            "Effect": "Allow",
            "Action": [one.action for one in several],
            "Resource": list(resources),
        }
        statements.append(statement | ({"Condition": several[0].condition} if several[0].condition else {}))
    return {"Version": "2012-10-17", "Statement": statements}


def _condition(grant: Grant) -> Object:
    if grant.action != "iam:PassRole":
        return {}
    return {"StringEquals": {"iam:PassedToService": _SCALER if grant.on == "scaler" else _SAGEMAKER}}
