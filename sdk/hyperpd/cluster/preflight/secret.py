"""The secret of Slurm's accounting database: there, not on its way out, and open to the role of the nodes.

That the role may read it roles.py asks IAM; a key of one's own that encrypts it has a policy, which nothing here reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.preflight.finding import Finding, refused, unknown, written
from hyperpd.cluster.preflight.reading import Object, Reading

_PATH = "orchestrator.slurm.accounting.secret"


def read(reading: Reading, secret: str) -> Object | None:
    """What DescribeSecret says, never what is in it; {}: there is none, None: unread."""
    return reading.ask("the secret of the accounting database", "secretsmanager", "describe_secret", SecretId=secret)


def check(plan: Blueprint, secret: str, described: Object) -> Iterator[Finding]:
    """described: what `read` gives."""
    name, region = secret.rpartition(":secret:")[2], plan.place.region
    if not described:
        what = f"{_PATH}: there is no secret {name} in {region}"
        store = f"Secrets Manager console, {region}, Store a new secret: the database's user and password"
        yield written("accounting-secret", what, _PATH, f"{store}; its ARN is what {_PATH} wants")
    elif described.get("DeletedDate"):
        what = f"secret {name} is scheduled for deletion: Slurm's accounting could not log in"
        fix = f"aws secretsmanager restore-secret --secret-id {secret} --region {region}"
        yield refused("accounting-secret", what, "Secrets Manager console, Secrets", fix)
    if (key := str(described.get("KmsKeyId") or "")) and not key.endswith("alias/aws/secretsmanager"):
        roles = ", ".join(dict.fromkeys(map(plan.role_arn, plan.groups.values())))
        what = f"secret {name} is encrypted by KMS key {key}; whether it lets {roles} kms:Decrypt is not checked"
        place = f"KMS console, Customer managed keys, {key.rpartition('/')[2]}, Key policy"
        yield unknown("key-policy", what, place, f"let it kms:Decrypt there, or by a policy of {roles}")
