"""hyperpd scale: how many workers each role of a deployment has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import dry_run_option, json_option, key_option
from hyperpd.cli.place import Where, place_options
from hyperpd.errors import RecipeError


@click.command()
@click.argument("name")
@click.argument("counts", metavar="ROLE=N...", nargs=-1, required=True)
@place_options
@dry_run_option
@click.option("--no-wait", is_flag=True, help="Apply, and do not wait.")
@click.option("--timeout-min", type=click.FloatRange(min=0), help="How long to wait; default: what its pods may take.")
@key_option
@json_option
def scale(
    name: str,
    counts: tuple[str, ...],
    where: Where,
    dry_run: bool,
    no_wait: bool,
    timeout_min: float | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Set how many workers roles of the deployment NAME have, as in prefill=3 decode=2; gateway is one, too.

    Pods that stay go on serving. It is a revision of its own. The recipe then says something else: write the numbers
    there, too; until then hyperpd deploy says that it would change them back, before it does.
    """
    from hyperpd import capacity
    from hyperpd.cli import deployed
    from hyperpd.deploy import rollout
    from hyperpd.deploy.deployment import check_key, roll_out, want_of

    wanted_counts = _numbers(counts)  # before anything is asked
    found = where.find(name)
    wanted = found.scaled(wanted_counts)
    check_key(wanted, key)
    planned = rollout.plan(found.api, wanted)
    if not as_json:
        machines = [capacity.instances(capacity.check(one.parsed)) for one in (want_of(found.revision), wanted)]
        if machines[0] != machines[1]:
            before, after = (", ".join(f"{n} {kind}" for kind, n in sorted(one.items())) for one in machines)
            output.line(f"note: it takes {after}, before {before}; the cluster's own number is not changed by this")
        deployed.plan(planned)
    if dry_run:
        if as_json:
            output.document({"sent": False, "counts": wanted_counts, **deployed.plan_document(planned)})
        return
    timeout_s = None if timeout_min is None else timeout_min * 60
    with output.remains(f"what is applied stays; run it again and it goes on where it was: {output.typed()}"):
        found = roll_out(
            found.api,
            planned,
            deployed.progress(as_json),
            aws=found.aws,
            timeout_s=timeout_s,
            wait=not no_wait,
            key=key,
        )
    if as_json:
        sent = not planned.again
        output.document({"sent": sent, "counts": wanted_counts, **deployed.status_document(found.status())})
    elif planned.again:
        output.line("it has these numbers already")


def _numbers(words: Sequence[str]) -> dict[str, int]:
    """Workers by role. Raises RecipeError with what is wrong with every word, as far as that goes without a cluster."""
    from pydantic import ValidationError

    from hyperpd.problems import nearest, problems
    from hyperpd.recipe import GatewaySpec, Role, RoleSpec

    blocks: dict[str, type[RoleSpec | GatewaySpec]] = {
        **dict.fromkeys(get_args(Role), RoleSpec),
        "gateway": GatewaySpec,
    }
    found: dict[str, int] = {}
    wrong = []
    for word in words:
        role, equals, count = word.partition("=")
        if not (role and equals):
            wrong.append(f"{word}: give ROLE=N, as in prefill=3")
        elif role not in blocks:
            wrong.append(f"{word}: there is no role {role}{nearest(role, list(blocks))}")
        elif role in found:
            wrong.append(f"{word}: {role} is given twice; remove one")
        else:
            try:
                found[role] = blocks[role].model_validate({"replicas": count}).replicas
            except ValidationError as error:
                wrong += [f"{role}.{problem}" for problem in problems(error, blocks[role])]
    if wrong:
        raise RecipeError("hyperpd scale", wrong)
    return found
