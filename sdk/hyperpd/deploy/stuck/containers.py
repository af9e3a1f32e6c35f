"""Why a container does not start, ends, or is not ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperpd.deploy.kubernetes.fleet import COMPONENT, NAME
from hyperpd.deploy.stuck import images, volumes
from hyperpd.deploy.stuck.cause import Cause, LastLines, Object, Seen, Sign, Stage, name, read, told
from hyperpd.errors import CloudError

LINES = 12
# What an ended container's own words tell, beyond its exit code.
SIGNS = (
    Sign(
        r"exec format error",
        "its image is for another processor",
        "build or mirror the image for linux/amd64: hyperpd image build, hyperpd image mirror RECIPE",
    ),
    Sign(
        r"GatedRepoError|gated repo|401 Client Error.*huggingface",
        "Hugging Face does not hand the model out without a token that was granted it",
        "ask for access on the model's page; then --set hf_token_secret=NAME, a Secret with the token as token",
    ),
    Sign(
        r"(Failed to resolve|Max retries exceeded|Temporary failure in name resolution).*",
        "it does not reach what it downloads from",
        "a way out of the subnets (NAT), or hyperpd image mirror RECIPE and model.path",
    ),
    Sign(
        r"CUDA out of memory|No available memory for the cache blocks|larger than the available KV cache memory",
        "the GPUs' memory does not suffice",
        "hyperpd plan RECIPE shows what it takes; more GPUs for each worker (parallel.tensor), or a smaller"
        " model.max_len_tokens",
    ),
    Sign(
        r"CUDA driver version is insufficient|forward compatibility was attempted|no CUDA-capable device",
        "the node's NVIDIA driver does not fit the image",
        "hyperpd cluster patch CLUSTER brings newer drivers; kubectl exec … nvidia-smi shows what is there",
    ),
)
_NO_COMMAND = Sign(
    r'exec: "?(?P<command>[^": ]+)"?: (executable file not found|no such file|permission denied)',
    "the image has no command {command}",
    "an image of hyperpd's: --set image=…",
)
# What kubelet says of a container that cannot be made.
CONFIG = (
    Sign(
        r"couldn't find key (?P<key>\S+) in (?P<kind>Secret|ConfigMap) (?P<gone>\S+)",
        "{kind} {gone} has no key {key}",
        "add it: kubectl edit {kind} -n {namespace}; a Hugging Face token is called token, the key file keys.json",
    ),
    Sign(
        r"runAsNonRoot and image (will run as root|has non-numeric user)",
        "its image runs as root, which the pod forbids",
        "hyperpd's own image (user 10001), or one that names a numeric user",
    ),
    _NO_COMMAND,
)
_CODES = {
    2: ("it refused its recipe or settings", "its log says which; correct the recipe and deploy again"),
    3: ("the recipe does not fit the machine", "hyperpd plan RECIPE; its log names what is needed and what is there"),
    4: ("it found no fabric, or its engine did not start", "its log says which; hyperpd doctor on the node"),
    126: ("its command cannot be executed", "command and image of the container"),
    127: ("its command is not in the image", "command and image of the container; --set image=…"),
    134: ("it aborted (SIGABRT)", "its log; the engine's assertion is in the lines before"),
    139: ("it crashed (SIGSEGV)", "its log; versions of driver, NIXL and EFA have to fit each other: hyperpd doctor"),
    143: ("it was asked to end (SIGTERM)", "kubectl get events says by whom: a drain, a probe, a rollout"),
}
_UNMADE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreStartHookError")
_WAITS = ("ContainerCreating", "PodInitializing")


def of_pod(pod: Object, seen: Seen, last_lines: LastLines) -> Iterator[Cause]:
    """Of all its containers, init containers first; where none has begun, of what they wait for."""
    status = pod.get("status", {})
    first, then = status.get("initContainerStatuses", ()), status.get("containerStatuses", ())
    if all(_waiting(state).get("reason") in _WAITS for state in (*first, *then)):
        yield from volumes.of_pod(pod, seen)
        yield from _sandbox(pod, seen)
        return
    for state in first:
        yield from _of(pod, state, seen, last_lines, "init container")
    for state in then:
        yield from _of(pod, state, seen, last_lines, "container")


def _of(pod: Object, state: Object, seen: Seen, last_lines: LastLines, kind: str) -> Iterator[Cause]:
    waiting = _waiting(state)
    reason = waiting.get("reason", "")
    ended = state.get("state", {}).get("terminated") or state.get("lastState", {}).get("terminated") or {}
    runs = "running" in state.get("state", {})
    if reason in images.REASONS:
        image = _container(pod, state["name"]).get("image") or state.get("image", "")
        words = [told(waiting), *(str(event.get("message", "")) for event in seen.of(pod, "Failed")[-1:])]
        what, fix = images.why(str(image), words)
        why = words[-1].removeprefix(f'Failed to pull image "{image}": ')
        yield Cause(Stage.UNSTARTED, (name(pod, "Pod"),), what, why, fix)
    elif reason in _UNMADE:
        yield _unmade(pod, state, waiting)
    elif reason == "CrashLoopBackOff" or (ended.get("exitCode", 0) and not state.get("ready")):
        yield _ended(pod, state, ended, seen, last_lines, kind)
    elif runs and not state.get("ready") and kind == "container":
        yield _unready(pod, state, seen, last_lines)


def _unmade(pod: Object, state: Object, waiting: Object) -> Cause:
    """A Secret or a ConfigMap that its variables need, most often."""
    message, namespace = str(waiting.get("message", "")), str(pod["metadata"].get("namespace", ""))
    signs = [Sign(one.words, one.what, one.fix.replace("{namespace}", namespace)) for one in (*CONFIG, *volumes.SIGNS)]
    who, stage = (name(pod, "Pod"),), Stage.UNSTARTED
    if sign := read(signs, message):
        return Cause(stage, who, f"container {state['name']} cannot be made: {sign.what}", "", sign.fix)
    fix = f"kubectl describe pod {pod['metadata']['name']} -n {namespace}"
    return Cause(stage, who, f"container {state['name']} cannot be made", told(waiting), fix)


def _ended(pod: Object, state: Object, ended: Object, seen: Seen, last_lines: LastLines, kind: str) -> Cause:
    code, reason = int(ended.get("exitCode", 0)), str(ended.get("reason", ""))
    # A container that waits or runs again has its words in the log of the one before.
    log = _log(pod, str(state["name"]), "terminated" not in state.get("state", {}), last_lines)
    again = f", {state['restartCount']} times by now" if state.get("restartCount", 0) > 1 else ""
    what, fix = _exit(pod, state, ended, seen, log)
    told_by_code = reason in ("Error", "OOMKilled", "Completed")
    words = told({"reason": "" if told_by_code else reason, "message": ended.get("message", "")})
    said = f"{kind} {state['name']} ended with exit code {code}{again}: {what}"
    return Cause(Stage.ENDED, (name(pod, "Pod"),), said, words, fix, log)


def _exit(pod: Object, state: Object, ended: Object, seen: Seen, log: Sequence[str]) -> tuple[str, str]:
    """(what, fix): by who ended it, by its own last words, by its exit code."""
    code = int(ended.get("exitCode", 0))
    if ended.get("reason") == "OOMKilled":
        limit = _container(pod, str(state["name"])).get("resources", {}).get("limits", {}).get("memory")
        return (
            f"it took more memory than its limit ({limit or 'the node had no more'})",
            "/dev/shm counts, with kv_tiers.memory_gib and tensors of all ranks: a smaller tier, fewer ranks in a"
            " worker, or a larger instance_type",
        )
    if killed := [event for event in seen.of(pod, "Killing") if "liveness probe" in str(event.get("message"))]:
        return (
            f"kubelet ended it, since its liveness probe failed ({_probe(pod, seen, 'Liveness') or told(killed[-1])})",
            "its log says what it hung in; a hung engine is started anew by this",
        )
    if sign := read((*SIGNS, _NO_COMMAND), "\n".join([*log, str(ended.get("message", ""))])):
        return sign.what, sign.fix
    if code == 137:
        return (
            "it was killed (SIGKILL), and not for its memory limit",
            "kubectl describe node NODE: the node's own memory ran out (System OOM), or its time to end was over",
        )
    if code == 0:
        return "it ended by itself, without an error", "its log says why; a worker has to go on"
    if code in (2, 3, 4) and pod["metadata"].get("labels", {}).get(NAME) != "hyperpd":
        return "it gave up", "its log says why"
    return _CODES.get(code, ("it gave up", "its log says why"))


def _unready(pod: Object, state: Object, seen: Seen, last_lines: LastLines) -> Cause:
    container = _container(pod, str(state["name"]))
    namespace = pod["metadata"].get("namespace", "")
    starts = "startupProbe" in container and not state.get("started")
    probe = _probe(pod, seen, "Startup" if starts else "Readiness") or _probe(pod, seen, "Liveness")
    what = f"container {state['name']} " + ("is still starting" if starts else "runs and is not ready")
    if pod["metadata"].get("labels", {}).get(COMPONENT) == "gateway":
        fix = "a gateway is ready only when a worker of each role is, and a first request went through: look at those"
        return Cause(Stage.FOLLOWS, (name(pod, "Pod"),), what, probe, fix, _log(pod, state["name"], False, last_lines))
    fix = (
        "wait, if the log moves on (weights load); else a longer start_timeout_s in the recipe"
        if starts
        else f"kubectl logs {pod['metadata']['name']} -n {namespace} -c {state['name']}: its admin port answers /ready"
        " with the reason"
    )
    log = _log(pod, str(state["name"]), False, last_lines)
    return Cause(Stage.UNREADY, (name(pod, "Pod"),), what, probe, fix, log)


def _probe(pod: Object, seen: Seen, kind: str) -> str:
    """The newest failure of a kind of probe, in kubelet's words."""
    said = [str(event.get("message", "")) for event in seen.of(pod, "Unhealthy")]
    return ([""] + [" ".join(each.split()) for each in said if each.startswith(kind)])[-1]


def _sandbox(pod: Object, seen: Seen) -> Iterator[Cause]:
    """Before any container there is a sandbox with an address."""
    message = seen.said(pod, "FailedCreatePodSandBox")
    if not message:
        return
    fix = f"kubectl describe pod {pod['metadata']['name']} -n {pod['metadata'].get('namespace', '')}"
    what = "its sandbox cannot be made"
    if "failed to assign an IP address" in message or "InsufficientFreeAddresses" in message:
        what = "no address is free for it"
        fix = (
            "the subnet or the node is out of addresses: a larger subnet (a p5 takes about 81), or prefix delegation of"
            " the VPC CNI"
        )
    yield Cause(Stage.UNSTARTED, (name(pod, "Pod"),), what, message, fix)


def _waiting(state: Object) -> Object:
    waiting: Object = state.get("state", {}).get("waiting") or {}
    return waiting


def _container(pod: Object, called: str) -> Object:
    spec = pod.get("spec", {})
    every: Sequence[Object] = [*spec.get("initContainers", ()), *spec.get("containers", ())]
    return next((one for one in every if one["name"] == called), {})


def _log(pod: Object, container: str, previous: bool, last_lines: LastLines) -> tuple[str, ...]:
    meta = pod["metadata"]
    try:
        return tuple(last_lines(str(meta.get("namespace", "")), str(meta["name"]), container, previous))[-LINES:]
    except CloudError as error:
        return (f"its log cannot be read: {error}",)
