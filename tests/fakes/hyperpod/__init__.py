"""A stand-in for the HyperPod control plane: SageMaker's JSON 1.1 over HTTP, virtual time, no AWS.

    with Control(LifecycleFailure("prefill"), Throttle(3), allow=policy, quotas={"ml.p5.48xlarge": 2}) as control:
        client = control.client()                   # boto3; others with AWS_ENDPOINT_URL_SAGEMAKER=control.url
        client.create_cluster(…)
        client.describe_cluster(ClusterName="a")   # each look takes step_s of virtual time (60 s)
        control.advance(3 * 3600)                   # … and so does this; nothing moves by itself
        control.calls                               # every call: service, operation, request, resource, error
        control.gate.actions()                      # (action, resource) that a policy has to allow
        control.nodes("a", "prefill"), control.cluster("a").status, control.sicken(node)

Faults inside the service (scenario.py): LifecycleFailure, HealthCheckFailure, NoCapacity, ClusterFailure,
SilentRollback, BatchFailure, Unseen (eventual consistency), NoDeleteWhile. On the way to it (tests/fakes/gate.py):
Throttle, Expire, Cut (before or after the effect; `do` kills a process), Fail. Give as many as you like.

InService with no nodes needs no fault but a NoCapacity or LifecycleFailure: a Continuous cluster is InService before
its nodes come, and stays so; without Continuous the cluster rolls back and is Failed with a FailureMessage.

Not modelled: automatic node recovery (a node that was made sick stays so until it is replaced), restricted instance
groups, scheduled and automatic patching, volumes and network interfaces attached later.

Requests and answers are held to botocore's shapes, bounds, patterns and enumerations included, and members it does not
know are refused. What no document says (marked "live?" or "a guess" in the code) only an account can show.
tests/fakes/aws has this and the other services in one environment.
"""

from tests.fakes.gate import Cut, Expire, Fail, Throttle
from tests.fakes.hyperpod.control import Control
from tests.fakes.hyperpod.scenario import (
    BatchFailure,
    ClusterFailure,
    HealthCheckFailure,
    LifecycleFailure,
    NoCapacity,
    NoDeleteWhile,
    Scenario,
    SilentRollback,
    Trouble,
    Unseen,
)

__all__ = [
    "BatchFailure",
    "ClusterFailure",
    "Control",
    "Cut",
    "Expire",
    "Fail",
    "HealthCheckFailure",
    "LifecycleFailure",
    "NoCapacity",
    "NoDeleteWhile",
    "Scenario",
    "SilentRollback",
    "Throttle",
    "Trouble",
    "Unseen",
]
