"""hyperpd cluster: a HyperPod cluster, from its file to its end."""

from __future__ import annotations

import click

from hyperpd.cli.commands import Commands

_COMMANDS = (
    *("plan", "create", "status", "watch", "update", "scale", "events", "nodes", "repair", "patch", "delete"),
    "schema",
)


@click.group(
    cls=Commands,
    commands={name: f"hyperpd.cli.cluster.{name}" for name in _COMMANDS} | {"import": "hyperpd.cli.cluster.adopt"},
)
def cluster() -> None:
    """A SageMaker HyperPod cluster: plan, create, watch, change, mend and delete it.

    FILE is a cluster file (its format: hyperpd cluster schema); CLUSTER is a cluster's name, or its file. Credentials
    and Region are those of your AWS configuration. Nothing is kept on this machine: a command that was cut off is
    simply run again. Verified against stand-ins of AWS; unverified on a live account.
    """
