"""A Lambda function, in a stack by its source: `asked` sends a SageMaker endpoint a request.

For who has no terminal. The source stands alone in the stack, so it imports nothing of hyperpd; boto3 is Lambda's.
Which endpoint it may ask its role says, not this.
"""

from __future__ import annotations

import json
import os
from typing import Any

ANSWER_S = 70  # SageMaker gives a container 60 s


def asked(event: dict[str, Any], context: Any) -> Any:
    """Any event is the body of a request. The status is the container's: 424 and the like are answers, too."""
    import boto3
    from botocore.config import Config

    # Once: what is sent again is computed again.
    once = Config(read_timeout=ANSWER_S, retries={"total_max_attempts": 1})
    runtime = boto3.client("sagemaker-runtime", config=once)
    body = json.dumps(event).encode()
    try:
        answer = runtime.invoke_endpoint(EndpointName=os.environ["ENDPOINT"], ContentType="application/json", Body=body)
    except runtime.exceptions.ModelError as error:
        said = error.response
        return {"status": said["OriginalStatusCode"], "answer": _read(said["OriginalMessage"].encode())}
    return {"status": 200, "answer": _read(answer["Body"].read())}


def _read(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")
