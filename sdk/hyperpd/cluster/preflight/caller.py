"""Caller: whose credentials these are, and how that principal is given a permission it lacks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hyperpd.cluster.aws import EXPIRED, Aws
from hyperpd.cluster.names import Place
from hyperpd.cluster.preflight.finding import Finding, refused
from hyperpd.errors import CloudError

Object = dict[str, Any]
_SSO = "AWSReservedSSO_"


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal behind the credentials; `arn` as STS says it."""

    arn: str
    where: Place

    @property
    def kind(self) -> str:
        """user, role, root, or other (a federated user)."""
        resource = self.arn.split(":", 5)[5]
        if resource == "root":
            return "root"
        return {"user": "user", "assumed-role": "role"}.get(resource.partition("/")[0], "other")

    @property
    def name(self) -> str:
        """Of the user or role."""
        parts = self.arn.split(":", 5)[5].split("/")
        return parts[1] if self.kind == "role" else parts[-1]

    @property
    def place(self) -> str:
        """Where its permissions are, in the console."""
        if self.kind == "role" and self.name.startswith(_SSO):
            return f"IAM Identity Center console, Permission sets, {self.name.removeprefix(_SSO).rpartition('_')[0]}"
        shelf = {"user": "Users", "role": "Roles"}.get(self.kind)
        return f"IAM console, {shelf}, {self.name}" if shelf else self.arn

    def grant(self, statements: Sequence[Object], policy: str) -> str:
        """How it gets what statements allow, as an inline policy of that name; somebody who may give it has to run
        that."""
        document = shlex.quote(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))
        if self.kind not in ("user", "role") or self.name.startswith(_SSO):
            return f"{self.place}: allow it with the policy {document}"
        named = f"--{self.kind}-name {shlex.quote(self.name)} --policy-name {policy}"
        return f"aws iam put-{self.kind}-policy {named} --policy-document {document}"


def read(aws: Aws) -> Caller | Finding:
    """The caller, or why there is none: without credentials and Region nothing else can be asked."""
    try:
        arn = str(aws.call("sts", "get_caller_identity")["Arn"])
        return Caller(arn, aws.place)
    except CloudError as error:
        said = str(error).partition("\n")[0]
        if error.code in EXPIRED:
            return refused(
                "credentials", f"credentials have expired: {said}", "your AWS configuration", "aws sso login"
            )
        if "no Region" in said or error.code == "NoRegionError":
            return refused("credentials", said, "your AWS configuration", "aws configure set region us-east-1")
        return refused("credentials", f"no usable credentials: {said}", "your AWS configuration", "aws configure")
