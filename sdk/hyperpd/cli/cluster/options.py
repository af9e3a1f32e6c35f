"""Arguments and options that the commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd import api_key

if TYPE_CHECKING:
    from hyperpd.cluster import Cluster
    from hyperpd.cluster.spec import ClusterSpec

_Command = Callable[..., Any]

file_argument = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
cluster_argument = click.argument("cluster")
region_option = click.option("--region", help="Region; default: the file's, or that of your AWS configuration.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document; progress to standard error.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the exact requests; send none that changes.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def _key(context: click.Context, option: click.Parameter, file: Path | None) -> str | None:
    return api_key.read(file) if file else None


key_option = click.option(
    "--key-file",
    "key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_key,
    help="File with an API key, to ask a gateway with gateway.auth: keys.",
)


def wait_options(command: _Command) -> _Command:
    """--no-wait and --timeout-min."""
    command = click.option("--no-wait", is_flag=True, help="Send it, and do not wait.")(command)
    return timeout_option(command)


def timeout_option(command: _Command) -> _Command:
    return click.option(
        "--timeout-min",
        type=click.FloatRange(min=0),
        default=195.0,
        show_default=True,
        help="How long to wait; HyperPod itself gives a group three hours.",
    )(command)


def named(cluster: str, region: str | None) -> Cluster:
    """The cluster of a name or a file."""
    from hyperpd.cluster import Cluster

    spec = written(cluster)
    return Cluster(spec.name, region=region or spec.region) if spec else Cluster(cluster, region=region)


def written(cluster: str) -> ClusterSpec | None:
    """What the file says; None where a name is given."""
    from hyperpd.cluster import load

    return load(cluster) if Path(cluster).is_file() or cluster.endswith((".yaml", ".yml")) else None


def again(verb: str, cluster: str, found: Cluster) -> str:
    """The command that goes on with a cluster, as it was named, in its Region."""
    from hyperpd.cluster.command import command

    return command(verb, cluster, found.names.place.region)
