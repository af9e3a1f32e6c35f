"""Answers and errors in the words of each protocol."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape

from tests.fakes.aws.request import Identified
from tests.fakes.gate import Refused
from tests.fakes.wire import Answer


def error(call: Identified, refused: Refused) -> Answer:
    code, said = escape(refused.code), escape(refused.message)
    words = f"<Code>{code}</Code><Message>{said}</Message>"
    match call.protocol:
        case "rest-xml":
            return _xml(refused.status, f"<Error>{words}<RequestId>stand-in</RequestId></Error>")
        case "ec2":
            body = f"<Response><Errors><Error>{words}</Error></Errors><RequestID>stand-in</RequestID></Response>"
            return _xml(refused.status, body)
        case "query":
            kind = "<Type>Sender</Type>"
            body = f"<ErrorResponse><Error>{kind}{words}</Error><RequestId>stand-in</RequestId></ErrorResponse>"
            return _xml(refused.status, body)
        case _:
            fields = {"__type": refused.code, "message": refused.message}
            headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-errortype": refused.code}
            return Answer(refused.status, headers, json.dumps(fields).encode())


def answer(call: Identified, body: dict[str, Any]) -> Answer:
    """What a stand-in says: JSON, or a query service's XML."""
    if call.protocol in ("json", "rest-json"):
        return Answer(
            200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(body, default=datetime.timestamp).encode()
        )
    result = f"<{call.operation}Result>{_elements(body)}</{call.operation}Result>"
    metadata = "<ResponseMetadata><RequestId>stand-in</RequestId></ResponseMetadata>"
    return _xml(200, f"<{call.operation}Response>{result}{metadata}</{call.operation}Response>")


def _elements(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{name}>{_elements(inner)}</{name}>" for name, inner in value.items())
    if isinstance(value, list):
        return "".join(f"<member>{_elements(inner)}</member>" for inner in value)
    if isinstance(value, datetime):
        return value.isoformat()
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


def _xml(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "text/xml"}, f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode())
