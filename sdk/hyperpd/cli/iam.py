"""hyperpd iam: the smallest policy for a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import written

if TYPE_CHECKING:
    from hyperpd.cluster.names import Place
    from hyperpd.cluster.permissions import Scope


_OF_A_FILE = ("cluster plan", "cluster create", "cluster update")
# What commands do in the EKS cluster itself, which IAM does not say.
_ACCESS_POLICIES = {
    "AmazonEKSClusterAdminPolicy": ("deploy", "scale", "undeploy", "cluster patch"),
    "AmazonEKSAdminViewPolicy": ("status", "logs"),
}


@click.command()
@click.argument("command", nargs=-1)
@click.option("--all", "every", is_flag=True, help="One policy for all commands.")
@click.option("--cluster", help="A cluster's file, or its name; default: any cluster of the account and Region.")
@click.option("--cluster-id", default="*", help="End of the cluster's ARN, once it is there: that cluster alone.")
@click.option("--bucket", "s3", default="", metavar="s3://BUCKET/PREFIX", help="hub publish, image mirror: where to.")
@click.option("--hub", default="*", help="hub publish: the private hub.")
@click.option("--endpoint", default="*", help="invoke, deploy, scale: the SageMaker endpoint; default: any.")
@click.option("--role", default="", help="Name of the role that gets the policy; default: a user does.")
@click.option("--account", help="Account, 12 digits; default: that of your credentials.")
@click.option("--region", help="Region; default: the file's, or that of your AWS configuration.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document: the policy, and why each action.")
def iam(
    command: tuple[str, ...],
    every: bool,
    cluster: str | None,
    cluster_id: str,
    s3: str,
    hub: str,
    endpoint: str,
    role: str,
    account: str | None,
    region: str | None,
    as_json: bool,
) -> None:
    """Print the IAM policy that COMMAND needs (as in: hyperpd iam cluster create), and no more than it needs.

    The policy goes to standard output, why each action is in it to standard error. Without COMMAND: which there are.
    With --cluster FILE resources are those the file names, and what it does not need is left out. Tests run every
    command against stand-ins of AWS that deny all else; unverified on a live account.
    """
    from hyperpd.cluster import permissions
    from hyperpd.cluster.actions import COMMANDS

    if every and command:
        raise click.UsageError("give a command or --all, not both")
    if not every and not command:
        if as_json:
            output.document(list(COMMANDS))
            return
        for name in COMMANDS:
            output.line(name)
        return
    names = list(COMMANDS) if every else [permissions.command(command)]
    scope = _scope(cluster, cluster_id, s3, hub, endpoint, role, account, region)
    if unplaced := permissions.unplaced(names, scope):
        if not every:
            raise click.UsageError(f"{names[0]} writes to a bucket: give it with --bucket s3://BUCKET/PREFIX")
        output.note(f"left out: S3 of {' and '.join(unplaced)}; give --bucket s3://BUCKET/PREFIX")
    if scope.plan is None and any(one in _OF_A_FILE for one in names):
        output.note("left out: roles and buckets that a cluster file names; give it with --cluster FILE")
    for line in _entries(names):
        output.note(line)
    policy, needed = permissions.policy(names, scope), permissions.permissions(names, scope)
    if as_json:
        why = [{"action": one.action, "resources": one.resources, "why": one.why} for one in needed]
        output.document({"commands": names, "policy": policy, "why": why})
        return
    output.document(policy)
    for one in needed:
        output.note(f"{one.action}: {'; '.join(one.why)}")


def _entries(names: Sequence[str]) -> Iterator[str]:
    """What else whoever runs these needs, in the EKS cluster."""
    for policy, commands in _ACCESS_POLICIES.items():
        if asked := [one for one in names if one in commands]:
            yield (
                f"{', '.join(asked)}: whoever gets this policy needs an EKS access entry, too, with a policy as"
                f" {policy}: aws eks create-access-entry, then associate-access-policy"
            )


def _scope(
    cluster: str | None,
    cluster_id: str,
    s3: str,
    hub: str,
    endpoint: str,
    role: str,
    account: str | None,
    region: str | None,
) -> Scope:
    from hyperpd.cluster.blueprint import blueprint
    from hyperpd.cluster.permissions import ANY, Scope

    if s3 and not s3.startswith("s3://"):
        raise click.BadParameter(f"{s3}: give s3://BUCKET/PREFIX", param_hint="--bucket")
    spec = written(cluster) if cluster else None
    where = place(account, region or (spec.region if spec else None))
    plan = blueprint(spec, where) if spec else None
    return Scope(where, spec.name if spec else cluster or ANY, plan, cluster_id, s3, hub, role, endpoint)


def place(account: str | None, region: str | None) -> Place:
    """What is given, the rest from your AWS configuration. Raises CloudError where that says nothing."""
    import re

    from hyperpd.cluster.aws import Aws
    from hyperpd.cluster.names import Place

    if account and not re.fullmatch(r"\d{12}", account):
        raise click.BadParameter(f"{account}: an account has 12 digits", param_hint="--account")
    if account and region:
        return Place(account, region)
    found = Aws(region).place
    return Place(account or found.account, found.region)
