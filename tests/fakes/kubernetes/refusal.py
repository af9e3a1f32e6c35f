"""Refused: what a server answers instead of an object, in the server's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

Object = dict[str, Any]


class Refused(Exception):
    """What the server answers instead of an object. causes: reason, message and field of each problem."""

    def __init__(
        self, status: int, reason: str, message: str, causes: Iterable[Object] = (), retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.causes, self.retry_after_s = status, reason, list(causes), retry_after_s

    def body(self) -> Object:
        said: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        details: Object = {"causes": self.causes} if self.causes else {}
        details |= {"retryAfterSeconds": self.retry_after_s} if self.retry_after_s is not None else {}
        said |= {"message": str(self), "reason": self.reason, "code": int(self.status)}
        return {**said, "details": details} if details else said

    def headers(self) -> Mapping[str, str]:
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


def missing(what: str = "") -> Refused:
    """404 of an object (`deployments.apps "a"`), or of a path that no server has."""
    message = f"{what} not found" if what else "the server could not find the requested resource"
    return Refused(HTTPStatus.NOT_FOUND, "NotFound", message)


def bad(message: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "BadRequest", message)


def forbidden(message: str) -> Refused:
    return Refused(HTTPStatus.FORBIDDEN, "Forbidden", message)


def unanswered(webhook: str) -> Refused:
    """500 of a server whose webhook is not there, and has to be asked (failurePolicy: Fail)."""
    why = f'failed calling webhook "{webhook}": failed to call webhook: no endpoints available for service "{webhook}"'
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", f"Internal error occurred: {why}")


def unexplained(webhook: str) -> Refused:
    """400 without a reason: of a webhook that denies and gives neither code nor message."""
    return Refused(HTTPStatus.BAD_REQUEST, "", f'admission webhook "{webhook}" denied the request without explanation')


def conflict(what: str, why: str = "") -> Refused:
    """409 of an object that is another than the request took it for."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return Refused(HTTPStatus.CONFLICT, "Conflict", f"Operation cannot be fulfilled on {what}: {why}")


def invalid(what: str, problems: Iterable[str]) -> Refused:
    """422; what: `Deployment.apps "a"`; problems: "path: message" each."""
    problems = list(problems)
    causes = [
        {"reason": "FieldValueInvalid", "field": problem.partition(": ")[0], "message": problem.partition(": ")[2]}
        for problem in problems
    ]
    said = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", f"{what} is invalid: {said}", causes)


def not_allowed(message: str) -> Refused:
    return Refused(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
