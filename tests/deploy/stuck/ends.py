"""Pods and containers that ended, or run and do not serve."""

from __future__ import annotations

from hyperpd.deploy.stuck import Seen, Stage
from tests.deploy.stuck.case import Case
from tests.deploy.stuck.parts import (
    NODE,
    condition,
    container,
    crashed,
    event,
    node,
    pod,
    running,
    starting,
)

_INIT = container({"waiting": {"reason": "PodInitializing"}})
_ROUTING = crashed(1) | {"name": "routing-proxy"}
_KILLED = starting(crashed(137))
ENDS = (
    Case(
        "memory limit",
        Stage.ENDED,
        "exit code 137, 4 times by now: it took more memory than its limit",
        "kv_tiers",
        Seen(pods=[starting(crashed(137, "OOMKilled"))]),
        ["warning: Max retries exceeded"],  # what ended it counts, not what it said before
    ),
    Case("SIGKILL", Stage.ENDED, "killed (SIGKILL), and not for its memory limit", "System OOM", Seen(pods=[_KILLED])),
    Case(
        "liveness",
        Stage.ENDED,
        "since its liveness probe failed (Liveness probe failed: Get",
        "hung",
        Seen(
            pods=[_KILLED],
            events=[
                event(
                    _KILLED,
                    "Unhealthy",
                    'Liveness probe failed: Get "http://10.0.1.9:8100/health": context deadline exceeded',
                    4,
                ),
                event(_KILLED, "Killing", "Container prefill failed liveness probe, will be restarted", 5),
            ],
        ),
    ),
    Case(
        "a refused recipe",
        Stage.ENDED,
        "exit code 2, 4 times by now: it refused its recipe",
        "correct the recipe",
        Seen(pods=[starting(crashed(2))]),
        ["recipe.yaml: 1 problem"],
    ),
    Case(
        "a segmentation fault", Stage.ENDED, "crashed (SIGSEGV)", "hyperpd doctor", Seen(pods=[starting(crashed(139))])
    ),
    Case(
        "an exit of no name",
        Stage.ENDED,
        "exit code 1, 4 times by now: it gave up",
        "its log",
        Seen(pods=[starting(crashed(1))]),
        ["Traceback (most recent call last):", "KeyError: 'rank'"],
    ),
    Case(
        "the end without an error",
        Stage.ENDED,
        "exit code 0",
        "has to go on",
        Seen(pods=[starting(crashed(0, "Completed"))]),
    ),
    Case(
        "a command that is not there",
        Stage.ENDED,
        "the image has no command hyperpd-node",
        "--set image=",
        Seen(
            pods=[
                starting(
                    crashed(
                        128,
                        "StartError",
                        message='OCI runtime create failed: exec: "hyperpd-node": executable file not found in $PATH',
                    )
                )
            ]
        ),
        why="StartError: OCI runtime create failed",
    ),
    Case(
        "a container's last words",
        Stage.ENDED,
        "exit code 1, 4 times by now: it gave up",
        "its log",
        Seen(pods=[starting(crashed(1, message="no GPU 3"))]),
        why="no GPU 3",
    ),
    Case(
        "between crash and restart",
        Stage.ENDED,
        "exit code 4",
        "hyperpd doctor",
        Seen(pods=[running(lastState={"terminated": {"exitCode": 4, "reason": "Error"}}, restartCount=2)]),
    ),
    Case(
        "another processor",
        Stage.ENDED,
        "for another processor",
        "linux/amd64",
        Seen(pods=[starting(crashed(1))]),
        ["exec /usr/bin/entrypoint.sh: exec format error"],
    ),
    Case(
        "a gated model",
        Stage.ENDED,
        "without a token",
        "hf_token_secret",
        Seen(pods=[starting(crashed(4))]),
        ["huggingface_hub.errors.GatedRepoError: 401 Client Error."],
    ),
    Case(
        "no way out",
        Stage.ENDED,
        "does not reach what it downloads from",
        "NAT",
        Seen(pods=[starting(crashed(4))]),
        ["Max retries exceeded with url: /api/models (Failed to resolve 'huggingface.co')"],
    ),
    Case(
        "GPU memory",
        Stage.ENDED,
        "GPUs' memory does not suffice",
        "parallel.tensor",
        Seen(pods=[starting(crashed(4))]),
        ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."],
    ),
    Case(
        "the driver",
        Stage.ENDED,
        "NVIDIA driver does not fit",
        "hyperpd cluster patch",
        Seen(pods=[starting(crashed(4))]),
        ["RuntimeError: CUDA driver version is insufficient for CUDA runtime version"],
    ),
    Case(
        "an init container",
        Stage.ENDED,
        "init container routing-proxy ended with exit code 1",
        "its log",
        Seen(pods=[starting(_INIT, initContainerStatuses=[_ROUTING])]),
    ),
    Case(
        "evicted",
        Stage.ENDED,
        "the node put it out: The node was low on resource: ephemeral-storage",
        "cache_folder",
        Seen(
            pods=[
                pod(
                    node=NODE,
                    phase="Failed",
                    reason="Evicted",
                    message="The node was low on resource: ephemeral-storage. Threshold quantity: 10737418240",
                )
            ]
        ),
    ),
    Case(
        "a lost device",
        Stage.ENDED,
        "no healthy device",
        "--replace",
        Seen(
            pods=[
                pod(
                    node=NODE,
                    phase="Failed",
                    reason="UnexpectedAdmissionError",
                    message="Pod was rejected: Allocate"
                    " failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1,"
                    " Available: 0, which is unexpected",
                )
            ]
        ),
    ),
    Case(
        "refused by kubelet",
        Stage.ENDED,
        "refused it when it came (OutOfcpu)",
        "describe node",
        Seen(
            pods=[
                pod(
                    node=NODE,
                    phase="Failed",
                    reason="OutOfcpu",
                    message="Pod was rejected: Node didn't have enough resource: cpu",
                )
            ]
        ),
    ),
    Case(
        "a node that went",
        Stage.ENDED,
        "its node went away",
        "--unhealthy",
        Seen(
            pods=[
                pod(
                    node=NODE,
                    phase="Failed",
                    reason="NodeShutdown",
                    message="Pod was terminated in response to imminent node shutdown.",
                )
            ]
        ),
    ),
    Case(
        "preempted",
        Stage.ENDED,
        "higher priority",
        "priority_class",
        Seen(
            pods=[
                pod(node=NODE, phase="Failed", reason="Preempting", message="Preempted in order to admit critical pod")
            ]
        ),
    ),
    Case(
        "its time is over",
        Stage.ENDED,
        "activeDeadlineSeconds",
        "take the deadline away",
        Seen(
            pods=[
                pod(
                    node=NODE,
                    phase="Failed",
                    reason="DeadlineExceeded",
                    message="Pod was active on the node longer than the specified deadline",
                )
            ]
        ),
    ),
    Case(
        "a failure of no name",
        Stage.ENDED,
        "it failed",
        "kubectl describe pod",
        Seen(pods=[pod(node=NODE, phase="Failed", reason="Odd", message="odd")]),
        why="Odd: odd",
    ),
)

_STARTS, _UNREADY = running(), running(started=True)
_GATEWAY = running("gateway", started=True)
_SICK = node() | {
    "status": {
        "conditions": [condition("Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")]
    }
}
UNREADY = (
    Case(
        "startup probe",
        Stage.UNREADY,
        "is still starting",
        "start_timeout_s",
        Seen(
            pods=[_STARTS],
            events=[event(_STARTS, "Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503")],
        ),
        ["Loading safetensors checkpoint shards: 12 % Completed"],
        why="Startup probe failed",
    ),
    Case(
        "readiness probe",
        Stage.UNREADY,
        "runs and is not ready",
        "answers /ready",
        Seen(
            pods=[_UNREADY],
            events=[event(_UNREADY, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")],
        ),
        ["draining"],
        why="Readiness probe failed",
    ),
    Case(
        "a gateway without workers",
        Stage.FOLLOWS,
        "runs and is not ready",
        "a worker of each role",
        Seen(
            pods=[_GATEWAY],
            events=[event(_GATEWAY, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")],
        ),
        ["no ready decode worker"],
    ),
    Case(
        "its node is lost",
        Stage.UNPLACED,
        f"its node {NODE} is not ready",
        "cluster repair CLUSTER i-0a1b2c3d4e5f67890",
        Seen(pods=[_UNREADY], nodes=[_SICK]),
        why="Kubelet stopped posting",
    ),
)
