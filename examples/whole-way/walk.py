"""From a cluster file to tokens, and back to nothing, in Python. See README.md.

Cells (`# %%`) to run one after the other; an editor shows them as a notebook. From the third on it costs money, until
the last has run.
"""

import os

from hyperpd.client import Client, Endpoint
from hyperpd.cluster import Cluster, load
from hyperpd.deploy.deployment import Place, deploy

# %% What is given: a cluster file with a recipe in it, an image in a registry, and the type of the gateways' machines
spec = load(os.environ.get("CLUSTER_FILE", "cluster.yaml"))
IMAGE = os.environ["IMAGE"]
FRONT = os.environ.get("FRONT_INSTANCE_TYPE", "ml.c6i.2xlarge")
PROMPT = "Once upon a time there was a river that ran from the hills to the sea, and on its bank"

# %% Plan: what stands in the way, what it costs, and what would be made; nothing is changed
found = Cluster.preflight(spec)
print(*found.lines(), sep="\n")
if error := found.error():
    raise error
print(len(Cluster.plan(spec).calls), "calls would make the cluster")

# %% Create the cluster, and wait for its nodes
cluster = Cluster.create(spec, print)
print(cluster.wait(print, new=True).line())

# %% Deploy the recipe: prefill, decode and a gateway, until they answer
place = Place(cluster=cluster.name, region=cluster.aws.place.region)
fleet = deploy(spec.recipe, place, settings=[f"image={IMAGE}"], progress=print)

# %% Make it a SageMaker endpoint: a gateway before the same workers, by HyperPod's inference operator
settings = [f"image={IMAGE}", "front=true", f"front_instance_type={FRONT}"]
front = deploy(spec.recipe, place, target="inference_operator", settings=settings, progress=print)
print("endpoint:", front.endpoint)

# %% Ask it through SageMaker: whole, and as it is made
client = Client(Endpoint(front.endpoint, region=place.region))
whole = client.complete(PROMPT, max_tokens=32, temperature=0)["choices"][0]["text"]
print(whole)
for text in client.stream(PROMPT, max_tokens=32, temperature=0):
    print(text, end="", flush=True)
print()

# %% Scale prefill and decode, each by its own number; the recipe's file stays as it is
fleet = fleet.scale({"prefill": 2, "decode": 2}, print)
for part in fleet.status().parts:
    print(part)
print(client.complete(PROMPT, max_tokens=32, temperature=0)["choices"][0]["text"])
client.close()

# %% Undeploy: the endpoint first, then what it asks
for deployment in (front, fleet):
    deployment.delete(print)
    deployment.close()

# %% Delete the cluster, and what was made for it
cluster.delete(print, bucket=spec.bucket or "")
