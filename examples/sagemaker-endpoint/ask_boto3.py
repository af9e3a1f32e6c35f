"""Ask a SageMaker endpoint that hyperpd serves, with boto3: python ask_boto3.py ENDPOINT MODEL "Once upon a time"."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import boto3


def whole(runtime: Any, endpoint: str, body: dict[str, Any]) -> str:
    """The answer at once. It has to be there within 60 s."""
    answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body))
    return str(json.loads(answer["Body"].read())["choices"][0]["text"])


def stream(runtime: Any, endpoint: str, body: dict[str, Any]) -> Iterator[str]:
    """The answer as it is made. A part of the payload ends anywhere, inside an event or a character too."""
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName=endpoint, ContentType="application/json", Body=json.dumps({**body, "stream": True})
    )
    rest = b""
    for part in answer["Body"]:  # what goes wrong on the way is raised here, as botocore's EventStreamError
        *lines, rest = (rest + part["PayloadPart"]["Bytes"]).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                return
            if data:
                event = json.loads(data)
                if "error" in event:  # HTTP said 200 long before
                    raise SystemExit(f"the stream broke off: {event['error']['message']}")
                yield str(event["choices"][0]["text"])
    raise SystemExit("the stream ended without [DONE]: what came is not the whole answer")


def main() -> None:
    endpoint, model, prompt = sys.argv[1:]
    runtime = boto3.client("sagemaker-runtime")
    body = {"model": model, "prompt": prompt, "max_tokens": 32, "temperature": 0}
    print(whole(runtime, endpoint, body))
    for text in stream(runtime, endpoint, body):
        print(text, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
