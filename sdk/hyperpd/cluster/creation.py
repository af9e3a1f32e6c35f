"""From a blueprint to AWS: compare with what is there, then send what is missing, the cluster last.

The cluster comes last so that one that is there has all it needs: a run killed before it begins anew and finds what
it made by name; one killed after it finds the cluster.
"""

from __future__ import annotations

import time

from hyperpd.cluster import described, reader, requests, resources, state
from hyperpd.cluster.aws import Aws
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.changes import Changes, diff
from hyperpd.cluster.progress import Step, Tell
from hyperpd.cluster.state import Status
from hyperpd.cluster.upload import upload
from hyperpd.errors import CloudError, RecipeError

PAUSE_S = 3.0
ROLE_S = 60.0  # how long a new role may not be known everywhere: an allowance, nothing AWS says
UNSEEN_S = 120.0


def known(aws: Aws, plan: Blueprint) -> None:
    """Raises RecipeError where the installed boto3 does not know what would be sent."""
    if found := list(requests.unknown(aws.shape("CreateCluster"), requests.create(plan))):
        raise RecipeError(f"cluster {plan.spec.name}", found)


def compare(aws: Aws, plan: Blueprint) -> tuple[Status | None, Changes | None]:
    """What is there, and how it differs; None twice where nothing is. Raises CloudError."""
    answer = reader.described(aws, plan.spec.name)
    if answer is None:
        return None, None
    answer = {"ClusterName": plan.spec.name, **answer}
    have = described.request(answer, reader.tags(aws, answer["ClusterArn"]))
    return state.status(answer), diff(requests.create(plan), have)


def create(aws: Aws, plan: Blueprint, tell: Tell) -> bool:
    """Send all that is missing and the cluster; False where its name was taken meanwhile. Raises CloudError."""
    _prepare(aws, plan, tell)
    began, request = time.monotonic(), requests.create(plan)
    while True:
        try:
            aws.call("sagemaker", "create_cluster", **request)
        except CloudError as error:
            if error.code == "ResourceInUse":
                return False
            new_role = plan.makes_role and error.code == "ValidationException" and "role" in str(error).lower()
            if not new_role or time.monotonic() - began > ROLE_S:
                raise
            tell(Step("the new role is not known everywhere yet"))
            time.sleep(PAUSE_S)
            continue
        tell(Step(f"cluster {plan.spec.name}: creation sent"))
        return True


def seen(aws: Aws, plan: Blueprint) -> tuple[Status, Changes]:
    """As compare, for a cluster whose name is taken, but which may not be seen yet. Raises CloudError."""
    began = time.monotonic()
    while True:
        status, changes = compare(aws, plan)
        if status is not None and changes is not None:
            return status, changes
        if time.monotonic() - began > UNSEEN_S:
            raise CloudError(f"the name {plan.spec.name} is taken, and no such cluster is seen; run it again later")
        time.sleep(PAUSE_S)


def update(aws: Aws, plan: Blueprint, arn: str, changes: Changes, tell: Tell) -> None:
    """Send what is missing, the update and the tags, as far as there are any. Raises CloudError."""
    if changes.tags:  # first: whoever may not tag learns it before anything is changed
        tags = [{"Key": key, "Value": value} for key, value in changes.tags.items()]
        aws.call("sagemaker", "add_tags", ResourceArn=arn, Tags=tags)
        tell(Step(f"cluster {plan.spec.name}: tags {', '.join(changes.tags)} set"))
    if changes.request:
        _prepare(aws, plan, tell)
        aws.call("sagemaker", "update_cluster", **changes.request)
        tell(Step(f"cluster {plan.spec.name}: update sent"))


def _prepare(aws: Aws, plan: Blueprint, tell: Tell) -> None:
    resources.make(aws, plan, tell)
    upload(aws, plan, tell)
