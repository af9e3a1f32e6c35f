"""The client: completions and chat, whole or as an iterator of text, from a gateway's URL or a SageMaker endpoint.

    with Client("http://127.0.0.1:8080") as client:             # or Client(Endpoint("tiny", region="us-east-2"))
        for text in client.stream("Once upon a time", max_tokens=32):
            print(text, end="")

patience.py: how long it waits and when it asks again; answers.py: bytes → text or an error; way.py: what a way in is;
gateway.py, endpoint.py: the two (call.py: boto3 in a thread); asynchronous.py, blocking.py: the two clients.
"""

from hyperpd.client.asynchronous import AsyncClient
from hyperpd.client.blocking import Client
from hyperpd.client.endpoint import Endpoint
from hyperpd.client.gateway import Gateway
from hyperpd.client.patience import Retries, Retry, Timeouts

__all__ = ["AsyncClient", "Client", "Endpoint", "Gateway", "Retries", "Retry", "Timeouts"]
