"""hyperpd deploy: a recipe into a cluster, until it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hyperpd.cli import completion, output
from hyperpd.cli.cluster.options import json_option, key_option, yes_option
from hyperpd.cli.place import Where, place_options

if TYPE_CHECKING:
    from hyperpd.deploy.apply import Api
    from hyperpd.deploy.rollout import Plan
    from hyperpd.deploy.wanted import Wanted

_LIVE = "what runs"


@click.command()
@click.argument("recipe", shell_complete=completion.recipe)
@place_options
@click.option(
    "--target",
    shell_complete=completion.target,
    help="kubernetes (default) or inference_operator; hyperpd targets says more.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the target; may be repeated.")
@click.option("--revision", type=click.IntRange(1), help="Deploy what this revision of the deployment RECIPE was.")
@click.option(
    "--diff",
    is_flag=False,
    flag_value=_LIVE,
    metavar="[REVISION]",
    help="Only show what differs, from what runs or from a revision.",
)
@click.option("--dry-run", is_flag=True, help="The cluster tries everything and keeps nothing.")
@click.option("--force", is_flag=True, help="Take over fields that somebody else set.")
@yes_option
@click.option("--no-wait", is_flag=True, help="Apply, and do not wait.")
@click.option("--timeout-min", type=click.FloatRange(min=0), help="How long to wait; default: what its pods may take.")
@key_option
@json_option
def deploy(
    recipe: str,
    where: Where,
    target: str | None,
    settings: tuple[str, ...],
    revision: int | None,
    diff: str | None,
    dry_run: bool,
    force: bool,
    yes: bool,
    no_wait: bool,
    timeout_min: float | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Deploy RECIPE (a file, or the name of a shipped one); shows first what changes. It ends when workers and gateway
    are ready and one request was answered.

    Each deployment is a revision, kept in the cluster: the last ten. Run again after it was cut off, it goes on where
    it was. Verified against a stand-in of the API server; unverified on a live cluster.
    """
    from hyperpd import recipe as recipes
    from hyperpd.cli import deployed
    from hyperpd.cluster.aws import Aws
    from hyperpd.deploy import rollout
    from hyperpd.deploy.deployment import TARGET, check_key, roll_out
    from hyperpd.deploy.wanted import want

    number = _number(diff)
    if revision and (target or settings):
        raise click.UsageError("--revision has its own target and settings")
    if revision:
        api = where.connect()
        wanted = _earlier(api, recipe, revision)
        check_key(wanted, key)
    else:
        wanted = want(recipes.load(recipe), target or TARGET, settings)  # before anything is asked
        check_key(wanted, key)
        if not (target or as_json):
            output.line(f"target: {TARGET} (others: --target)")
        api = where.connect()
    if number is not None:
        _show_difference(api, wanted, number, as_json)
        return
    planned = rollout.plan(api, wanted, force=force)
    if not as_json:
        output.line(f"to: {planned.revision.home} of {api.server}")
        deployed.plan(planned)
    if dry_run or diff:
        if as_json:
            output.document({"deployed": False, **deployed.plan_document(planned)})
        return
    if planned.again:
        if not as_json:
            output.line(f"nothing differs from revision {planned.before[-1].number}")
    else:
        output.confirm(_question(planned), yes, as_json)
    timeout_s = None if timeout_min is None else timeout_min * 60
    with output.remains(f"what is applied stays; run it again and it goes on where it was: {output.typed()}"):
        found = roll_out(
            api,
            planned,
            deployed.progress(as_json),
            aws=Aws(where.region),
            timeout_s=timeout_s,
            wait=not no_wait,
            force=force,
            key=key,
        )
    if as_json:
        ways = {"url": found.url, "endpoint": found.endpoint, "invoke": found.invoke(where.place)}
        state = {"deployed": True, "state": found.revision.state}
        output.document({**state, **deployed.plan_document(planned), **ways})
        return
    if no_wait:
        output.line(f"go on with: hyperpd status {found.name}{where.flags()}")
    deployed.ways(found, where)


def _number(diff: str | None) -> int | None:
    if diff in (None, _LIVE):
        return None
    if not diff.isdecimal():
        raise click.UsageError(f"--diff {diff}: give the number of a revision, or nothing for what runs")
    return int(diff)


def _earlier(api: Api, name: str, number: int) -> Wanted:
    """What a revision was. Raises RecipeError."""
    from hyperpd.cli import deployed
    from hyperpd.deploy import revision
    from hyperpd.deploy.deployment import want_of

    return want_of(revision.numbered(revision.find(api, name, deployed.noted), number))


def _show_difference(api: Api, wanted: Wanted, number: int, as_json: bool) -> None:
    """From a revision's objects to these."""
    from hyperpd.cli import deployed
    from hyperpd.deploy import difference, revision

    before = revision.numbered(revision.history(api, wanted.home), number)
    changes = difference.compare(before.objects, wanted.objects)
    if as_json:
        told = [deployed.change_document(one) for one in changes]
        output.document({"deployed": False, "from": deployed.revision_document(before), "changes": told})
        return
    output.line(f"from {before.line()}")
    lines = [line for one in changes if one.what != "unchanged" for line in one.lines()]
    for line in lines or ["nothing differs"]:
        output.line(line)


def _question(planned: Plan) -> str:
    gone = [str(one.ref) for one in planned.changes if one.what == "deleted"]
    first = f"Delete {', '.join(gone)} and deploy" if gone else "Deploy"
    return f"{first} {planned.revision.name} in {planned.revision.home} as revision {planned.revision.number}?"
