"""markdown(review) → the review as a page for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hyperpd.cluster.review import Review


def markdown(review: Review) -> str:
    """The page."""
    return "\n".join(_lines(review)) + "\n"


def _lines(review: Review) -> Iterator[str]:
    yield f"# Network and compliance review: {review.cluster}"
    yield ""
    yield (
        f"HyperPod on {review.orchestrator}, account {review.account}, {review.region}. Written on {review.date} by"
        " `hyperpd review` from the cluster file; nothing of AWS was asked. Nothing here was seen on a live account."
    )
    yield from _section("Not encrypted")
    yield from _list(f"{one.what}: {one.by}" for one in review.claims if one.encrypted is False)
    yield from _section("Unverified")
    yield "Without a proof here; ask AWS or look, before you rely on it. A proof that is an address is AWS's word."
    yield ""
    yield from _list(
        [
            *(f"{one.what}: {one.by}" for one in review.claims if not one.proof),
            *(f"VPC endpoint {one.service}" for one in review.endpoints if not one.proof),
        ]
    )
    yield from _section("Flows and ports")
    yield from _table(
        ("From", "To", "Ports", "What", "Encrypted"),
        ((one.source, one.target, ", ".join(one.ports), one.what, one.encrypted) for one in review.flows),
    )
    for title, claims in (("Encryption in transit", review.transit), ("Encryption at rest", review.rest)):
        yield from _section(title)
        yield from _table(
            ("What", "Verdict", "By", "Proof"), ((one.what, one.verdict, one.by, one.proof) for one in claims)
        )
    yield from _section("VPC endpoints")
    yield f"`com.amazonaws.{review.region}.…`; S3's always, the others where subnets have no other way out."
    yield ""
    yield from _table(
        ("Service", "Kind", "Why", "Proof"),
        ((one.service, one.kind, one.why, one.proof or "unverified") for one in review.endpoints),
    )
    yield from _section("IAM: whoever runs hyperpd")
    yield "`hyperpd iam COMMAND` prints each as a policy. Tests run every command with it; stand-ins deny the rest."
    if review.made_role:
        yield ""
        yield (
            "Who may create this cluster may write the policy of the role that its nodes take on (iam:PutRolePolicy),"
            " and so give nodes anything. With `role:` in the cluster file the policy has no such action."
        )
    for command, needed in review.callers.items():
        yield ""
        yield f"### hyperpd {command}"
        yield ""
        yield from _table(
            ("Action", "On", "Why"), ((one.action, ", ".join(one.resources), "; ".join(one.why)) for one in needed)
        )
    yield from _section("IAM: nodes")
    own = "The role that is made has these." if review.made_role else "The role that the file names needs these."
    yield f"{own} Whoever runs on a node has them too."
    yield ""
    yield from _table(
        ("For", "Actions", "On"),
        (
            (one["Sid"], ", ".join(_several(one["Action"])), ", ".join(_several(one["Resource"])))
            for one in review.nodes
        ),
    )


def _section(title: str) -> Iterator[str]:
    yield from ("", f"## {title}", "")


def _list(lines: Iterable[str]) -> Iterator[str]:
    yield from [f"- {line}" for line in lines] or ["- nothing"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _several(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
