"""hyperpd cluster schema: the format of a cluster file."""

from __future__ import annotations

import click

from hyperpd.cli import output


@click.command()
def schema() -> None:
    """Print the JSON Schema of a cluster file, for editors and programs."""
    from hyperpd.cluster import spec

    output.document(spec.schema())
