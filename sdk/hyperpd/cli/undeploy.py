"""hyperpd undeploy: a deployment leaves its cluster."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import dry_run_option, json_option, yes_option
from hyperpd.cli.place import Where, place_options


@click.command()
@click.argument("name")
@place_options
@click.option("--everything", is_flag=True, help="Also what others keep in its namespaces, data of volumes too.")
@dry_run_option
@yes_option
@click.option("--timeout-min", type=click.FloatRange(min=0), default=15.0, show_default=True, help="How long to wait.")
@json_option
def undeploy(
    name: str, where: Where, everything: bool, dry_run: bool, yes: bool, timeout_min: float, as_json: bool
) -> None:
    """Remove the deployment NAME (its recipe's name, or its namespace); shows first what goes and what stays. Run again
    after it was cut off, it goes on where it was."""
    from hyperpd.cli import deployed

    found = where.find(name)
    removal = found.removal(everything=everything)
    if not as_json:
        output.line("goes:")
        for line in removal.lines():
            output.line(f"  {line}")
        if removal.stays:
            output.line("stays:")
            for line in removal.stays:
                output.line(f"  {line}")
    if not dry_run:
        output.confirm(f"Remove {found.name} from {found.revision.home}?", yes, as_json)
        with output.remains(f"run it again and it goes on where it was: {output.typed()}"):
            found.delete(deployed.progress(as_json), everything=everything, timeout_s=timeout_min * 60)
    if as_json:
        goes = removal.lines()
        output.document({"removed": not dry_run, "name": removal.name, "goes": goes, "stays": list(removal.stays)})
