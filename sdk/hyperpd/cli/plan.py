"""hyperpd plan: where each worker of a recipe runs, and what it execs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from hyperpd.cli import completion, output

if TYPE_CHECKING:
    from hyperpd.cli.documents.recipe import Plan, PlannedWorker


@click.command()
@click.argument("recipe", shell_complete=completion.recipe)
@click.option("--launch", "launches", is_flag=True, help="Print the argv and environment of every worker.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--model", help="Model folder or Hugging Face id to serve instead of the recipe's.")
@click.option("--port-offset", default=0, type=click.IntRange(0, 50000), help="Added to every port.")
def plan(recipe: str, launches: bool, as_json: bool, model: str | None, port_offset: int) -> None:
    """Show the workers of RECIPE (a file, or the name of a shipped recipe)."""
    from dataclasses import asdict, replace

    from hyperpd.capacity import machines
    from hyperpd.engine import launch
    from hyperpd.environment import model_path, this_machine
    from hyperpd.placement import Ports, place
    from hyperpd.recipe import load

    file = load(recipe).serving(model)
    planned = machines(file.recipe)
    where = planned if len(planned) > 1 else (replace(planned[0], cpus=this_machine().cpus),)
    workers = place(file.recipe, where, Ports().shifted(port_offset)).workers
    commands = [launch(file.recipe, worker, model_path=model_path(file.recipe)) for worker in workers]
    if as_json:
        shown = [
            {"name": worker.name, **asdict(worker)}
            | ({"argv": command.argv, "env": dict(command.env), "cpus": command.cpus} if launches else {})
            for worker, command in zip(workers, commands, strict=True)
        ]
        document: Plan = {
            "recipe": file.recipe.name,
            "recipe_digest": file.digest,
            "workers": cast("list[PlannedWorker]", shown),
        }
        output.document(document)
        return
    title = f"{file.recipe.name} (recipe digest {file.digest})"
    if launches:
        output.line(f"# {title}")
        output.line("# START in an engine id stands for an id that is new at every start")
        for worker, command in zip(workers, commands, strict=True):
            output.line(f"# {worker.name}")
            output.line(command.shell())
        return
    output.line(title)
    output.table(
        ("worker", "node", "gpus", "cpus", "api", "admin", "side channel"),
        [
            (
                worker.name,
                str(worker.node),
                ",".join(map(str, worker.gpu_ids)) or "-",
                ",".join(map(str, worker.cpu_ids)) or "shared",
                str(worker.api_port),
                str(worker.admin_port),
                str(worker.side_channel_port),
            )
            for worker in workers
        ],
    )
