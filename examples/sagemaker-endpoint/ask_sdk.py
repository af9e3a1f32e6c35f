"""Ask a SageMaker endpoint that hyperpd serves, with the SageMaker SDK: python ask_sdk.py ENDPOINT MODEL PROMPT.

sagemaker-core 2.27 cannot read a stream (its Endpoint.invoke_with_response_stream fails on every answer), so that part
goes through boto3, which the SDK brings.
"""

from __future__ import annotations

import json
import sys

import boto3
from ask_boto3 import stream
from sagemaker.core.resources import Endpoint


def main() -> None:
    name, model, prompt = sys.argv[1:]
    body = {"model": model, "prompt": prompt, "max_tokens": 32, "temperature": 0}
    answer = Endpoint(endpoint_name=name).invoke(body=json.dumps(body), content_type="application/json")
    print(json.loads(answer.body.read())["choices"][0]["text"])
    for text in stream(boto3.client("sagemaker-runtime"), name, body):
        print(text, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
