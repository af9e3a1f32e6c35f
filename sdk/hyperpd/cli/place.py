"""Where a command of a deployment goes: --cluster, or --context and --kubeconfig."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd.errors import RecipeError

if TYPE_CHECKING:
    from hyperpd.deploy.apply import Api
    from hyperpd.deploy.deployment import Deployment, Place


@dataclass(frozen=True, slots=True)
class Where:
    """What was given of a place."""

    cluster: str | None
    region: str | None
    context: str | None
    kubeconfig: Path | None

    @property
    def given(self) -> bool:
        return bool(self.cluster or self.context or self.kubeconfig)

    @property
    def place(self) -> Place:
        from hyperpd.deploy.deployment import Place

        return Place(self.cluster, self.region, self.context, self.kubeconfig)

    def connect(self) -> Api:
        """The API server there, until the command ends. Raises RecipeError, CloudError."""
        api = self.place.connect()
        click.get_current_context().call_on_close(api.close)
        return api

    def find(self, name: str) -> Deployment:
        """A deployment there. Raises RecipeError, CloudError."""
        from hyperpd.cli import deployed
        from hyperpd.cli.fleet import fleets
        from hyperpd.cluster.aws import Aws
        from hyperpd.deploy import revision
        from hyperpd.deploy.deployment import Deployment

        if not self.given and name in [fleet.name for fleet in fleets() if fleet.running()]:
            ways = "hyperpd status shows it and where its logs are, hyperpd down stops it"
            raise RecipeError(name, [f"a fleet of this machine: {ways}. For a deployment give --cluster, or --context"])
        api = self.connect()
        return Deployment(api, revision.find(api, name, deployed.noted)[-1], aws=Aws(self.region))

    def flags(self) -> str:
        """As they are typed again, with a space before them."""
        values = asdict(self)
        return "".join(f" --{key} {shlex.quote(str(value))}" for key, value in values.items() if value)


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, given to the command as `where`."""

    @functools.wraps(command)
    def placed(
        *args: Any,
        cluster: str | None,
        region: str | None,
        context: str | None,
        kubeconfig: Path | None,
        **given: Any,
    ) -> Any:
        if cluster and (context or kubeconfig):
            raise click.UsageError("give --cluster, or --context and --kubeconfig, not both")
        return command(*args, where=Where(cluster, region, context, kubeconfig), **given)

    for option in (
        click.option(
            "--kubeconfig",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Kubeconfig; default: $KUBECONFIG, else ~/.kube/config.",
        ),
        click.option("--context", help="Context of the kubeconfig; default: its current one."),
        click.option("--region", help="Region of --cluster; default: that of your AWS configuration."),
        click.option("--cluster", help="HyperPod cluster on EKS; neither aws nor kubectl is needed."),
    ):
        placed = option(placed)
    return placed
