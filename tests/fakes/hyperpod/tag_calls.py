"""AddTags, ListTags, DeleteTags."""

from __future__ import annotations

from tests.fakes.hyperpod.account import Account, Body, invalid


def _of(account: Account, arn: str) -> dict[str, str]:
    here = arn in account.tags and not any(each.arn == arn and each.gone for each in account.clusters)
    if not here:
        raise invalid(f"Could not find resource {arn}")
    return account.tags[arn]


def add(account: Account, request: Body) -> Body:
    tags = _of(account, request["ResourceArn"])
    tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
    return list_(account, request)


def list_(account: Account, request: Body) -> Body:
    tags = _of(account, request["ResourceArn"])
    return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def delete(account: Account, request: Body) -> Body:
    tags = _of(account, request["ResourceArn"])
    for key in request["TagKeys"]:
        tags.pop(key, None)
    return {}


OPERATIONS = {"AddTags": add, "ListTags": list_, "DeleteTags": delete}
