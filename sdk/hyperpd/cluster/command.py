"""command(verb, cluster, region) → the command that a person runs next, complete: it is pasted as it is."""

from __future__ import annotations

import shlex


def command(verb: str, cluster: str, region: str | None, *more: str) -> str:
    """cluster: name or file. region: None where it is not known yet, and the one of the AWS configuration is meant."""
    where = ("--region", region) if region else ()
    return shlex.join(("hyperpd", "cluster", verb, cluster, *more, *where))
