"""A HyperPod cluster and an endpoint on it, with the SageMaker Python SDK and nothing of hyperpd. See README.md.

Cells (`# %%`) to run one after the other. From the first to the last it costs money.
"""

import json
import os
from pathlib import Path

from sagemaker.core.resources import Cluster, Endpoint
from sagemaker.core.utils.code_injection.codec import transform

# %% Create the cluster, by the request that `hyperpd cluster plan cluster.yaml --json > plan.json` wrote down
requests = json.loads(Path(os.environ.get("PLAN_FILE", "plan.json")).read_text())["requests"]
if others := [one["operation"] for one in requests if one["operation"] != "create_cluster"]:
    raise SystemExit(f"make first what the cluster needs, or name it in the cluster file: {', '.join(others)}")
cluster = Cluster.create(**transform(requests[0]["parameters"], "CreateClusterRequest"))
cluster.wait_for_status("InService")
for group in cluster.instance_groups:
    print(group.instance_group_name, group.current_count, "of", group.target_count)

# %% Ask the endpoint that `hyperpd deploy` made on it
endpoint = Endpoint(endpoint_name=os.environ.get("ENDPOINT", "gpt-oss-20b-g6e-1p1d"))
body = {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0}
answer = endpoint.invoke(body=json.dumps(body), content_type="application/json")
print(json.loads(answer.body.read())["choices"][0]["text"])

# %% Delete the cluster
cluster.delete()
cluster.wait_for_delete()
