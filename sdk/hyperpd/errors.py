"""Every error hyperpd raises on purpose.

    HyperpdError
    ├── RecipeError        what the author wrote is wrong; every problem at once   exit 2
    ├── CapacityError      it does not fit: needed and available                   exit 3
    ├── CloudError         AWS or Kubernetes refused                               exit 4
    │   └── NotReady       waited, and it did not become ready                     exit 4
    ├── FabricError        no usable path for the KV cache                         exit 4
    └── RequestError       a request was not answered as asked                     exit 5
        ├── Rejected           4xx
        ├── NoWorkerAvailable  503
        ├── Overloaded         429 / 503, with Retry-After
        ├── PrefillFailed      502
        ├── HandoffFailed      502
        ├── DecodeFailed       502
        └── TimedOut           504

A message says what happened (with the value), where, and what to try. Those that
end a command or a request are caught in three places only: the command line's `main`, the node's
`run` and the gateway's error handler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class HyperpdError(Exception):
    """Something expected went wrong; the message is for the person who asked."""

    exit_code = 1


class RecipeError(HyperpdError):
    """A file, a flag or a variable that somebody wrote cannot be used; carries every problem found."""

    exit_code = 2

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.where = where
        self.problems = tuple(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__("\n".join([f"{where}: {count}", *(f"  - {problem}" for problem in problems)]))


class CapacityError(HyperpdError):
    """It does not fit; the message names what is needed and what is available."""

    exit_code = 3


class CloudError(HyperpdError):
    """AWS or Kubernetes refused; the message names operation, code and cause.

    operation, code: as the service names them, for a program to compare; empty where no service said no.
    """

    exit_code = 4

    def __init__(self, message: str, *, operation: str = "", code: str = "") -> None:
        super().__init__(message)
        self.operation = operation
        self.code = code


class NotReady(CloudError):
    """Something was started and did not become ready; the message says the last state and where to look."""


class FabricError(HyperpdError):
    """No usable path for the KV cache was found."""

    exit_code = 4


class RequestError(HyperpdError):
    """A request was not answered as asked.

    status: the HTTP status to answer with (or that was received).
    kind:   OpenAI's error `type`.
    code:   a short, stable word a program can compare.
    param:  the field that is wrong, where it is one.
    advice: what to try, where the message does not say it.
    """

    exit_code = 5
    status = 500
    kind = "server_error"
    code = "internal_error"
    advice = ""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status or type(self).status
        self.code = code or type(self).code
        self.param = param
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's error object, as it goes over the wire."""
        return {
            "error": {
                "message": f"{self}; {self.advice}" if self.advice else str(self),
                "type": self.kind,
                "code": self.code,
                "param": self.param,
                "request_id": self.request_id,
            }
        }


class Rejected(RequestError):
    """The request is wrong and will be wrong again (4xx)."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"


class NoWorkerAvailable(RequestError):
    """No worker of a needed role is ready (503)."""

    status = 503
    code = "no_worker_available"


class Overloaded(RequestError):
    """Too much at once; come back after `retry_after_s` seconds (429 or 503)."""

    status = 429
    kind = "rate_limit_error"
    code = "overloaded"


class PrefillFailed(RequestError):
    """The prefill leg failed (502)."""

    status = 502
    code = "prefill_failed"
    advice = "try again"


class HandoffFailed(RequestError):
    """Prefill succeeded, but its KV cache could not be handed to decode (502)."""

    status = 502
    code = "handoff_failed"
    advice = "try again"


class DecodeFailed(RequestError):
    """The decode leg failed (502)."""

    status = 502
    code = "decode_failed"
    advice = "try again"


class TimedOut(RequestError):
    """It took longer than the recipe allows (504). Asked again it would, too: clients are told not to."""

    status = 504
    code = "timed_out"
