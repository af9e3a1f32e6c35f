"""hyperpd logs: what the pods of a deployment say."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.place import Where, place_options


@click.command()
@click.argument("name")
@place_options
@click.option("--role", type=click.Choice(["prefill", "decode", "aggregated", "gateway"]), help="Only its pods.")
@click.option("--follow", is_flag=True, help="Go on as lines come.")
@click.option("--previous", is_flag=True, help="Of the container before the last restart.")
@click.option("--tail", type=click.IntRange(0), help="Only so many of each pod's last lines.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document for each line.")
def logs(
    name: str, where: Where, role: str | None, follow: bool, previous: bool, tail: int | None, as_json: bool
) -> None:
    """Print the logs of the deployment NAME (its recipe's name, or its namespace), each line after its pod."""
    found = where.find(name)
    for line in found.logs(role, follow=follow, previous=previous, tail=tail):
        if as_json:
            output.document({"pod": line.pod, "line": line.text}, of_many=True)
        else:
            output.line(f"{line.pod}  {line.text}")
