"""A HyperPod cluster and an endpoint on it, with boto3 and nothing of hyperpd. See README.md.

Cells (`# %%`) to run one after the other. From the first to the last it costs money.
"""

import json
import os
import time
from pathlib import Path

import boto3

sagemaker, runtime = boto3.client("sagemaker"), boto3.client("sagemaker-runtime")


def settled(name: str, passing: str) -> str:
    """What a cluster becomes after `passing`; Deleted when it is gone."""
    while True:
        try:
            found = sagemaker.describe_cluster(ClusterName=name)
        except sagemaker.exceptions.ResourceNotFound:
            return "Deleted"
        if found["ClusterStatus"] != passing:
            return f"{found['ClusterStatus']} {found.get('FailureMessage', '')}".strip()
        time.sleep(5)


# %% Create the cluster, by the request that `hyperpd cluster plan cluster.yaml --json > plan.json` wrote down
requests = json.loads(Path(os.environ.get("PLAN_FILE", "plan.json")).read_text())["requests"]
if others := [one["operation"] for one in requests if one["operation"] != "create_cluster"]:
    raise SystemExit(f"make first what the cluster needs, or name it in the cluster file: {', '.join(others)}")
sagemaker.create_cluster(**requests[0]["parameters"])
name = requests[0]["parameters"]["ClusterName"]
print(settled(name, "Creating"))
for node in sagemaker.list_cluster_nodes(ClusterName=name)["ClusterNodeSummaries"]:
    print(node["InstanceGroupName"], node["InstanceStatus"]["Status"])

# %% Ask the endpoint that `hyperpd deploy` made on it
body = {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0}
answer = runtime.invoke_endpoint(
    EndpointName=os.environ.get("ENDPOINT", "gpt-oss-20b-g6e-1p1d"),
    ContentType="application/json",
    Body=json.dumps(body),
)
print(json.loads(answer["Body"].read())["choices"][0]["text"])

# %% Delete the cluster
sagemaker.delete_cluster(ClusterName=name)
print(settled(name, "Deleting"))
