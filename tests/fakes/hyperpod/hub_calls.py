"""A private hub's contents: tests/fakes/hub.py behind the same gate."""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes.gate import Refused
from tests.fakes.hyperpod.account import Account, Body


def _asked(operation: str) -> Callable[[Account, Body], Body]:
    def answer(account: Account, request: Body) -> Body:
        status, body = account.hub.answer(operation, request)
        if status != 200:
            raise Refused(body["__type"], body["message"], status)
        return body

    return answer


OPERATIONS = {operation: _asked(operation) for operation in ("ImportHubContent", "DescribeHubContent")}
