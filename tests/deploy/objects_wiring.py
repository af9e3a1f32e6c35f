"""What objects say of each other: problems(objects, file). Every name, selector, port and bound meets its other end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from pydantic import ValidationError

from hyperpd.environment import PREFIX, Environment
from hyperpd.recipe import RecipeFile
from tests.deploy.objects import Object, Pod, name, namespace, near, of, pods, selects, templates

Check = Callable[[Sequence[Object], RecipeFile], Iterator[str]]


def problems(objects: Sequence[Object], file: RecipeFile) -> list[str]:
    """Every problem of every check below."""
    return [problem for check in CHECKS for problem in check(objects, file)]


def identities(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """No object is rendered twice; what others stand on comes before them."""
    counts = Counter((each["apiVersion"].partition("/")[0], namespace(each), name(each)) for each in objects)
    yield from (f"{called}: rendered {count} times" for (*_, called), count in counts.items() if count > 1)
    workloads = [index for index, each in enumerate(objects) if templates(each)]
    for index, each in enumerate(objects):
        early = each["kind"] in ("ConfigMap", "ServiceAccount", "NetworkPolicy", "Namespace")
        if early and workloads and index > workloads[0]:
            yield f"{name(each)} comes after {name(objects[workloads[0]])}, which may start without it"
        if each["kind"] == "Namespace" and any(before["kind"] != "Namespace" for before in objects[:index]):
            yield f"{name(each)} is not among the first objects"


def selectors(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """A Deployment owns its own pods and nobody else's."""
    for each in of(objects, "Deployment", "StatefulSet"):
        for pod in near(objects, each):
            mine = pod.owner == name(each)
            if mine != selects(each["spec"]["selector"], pod.labels):
                yield f"{name(each)}: its selector {'misses its own' if mine else 'takes'} pod {pod.name}"


def services(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """A Service selects every pod of one role that has an API, and no other; its ports are theirs."""
    for each in of(objects, "Service"):
        spec = each["spec"]
        every = near(objects, each)
        chosen = [pod for pod in every if _selected(each, pod)]
        roles = {pod.role for pod in chosen}
        if len(roles) != 1:
            yield f"{name(each)} selects pods of {', '.join(sorted(roles)) or 'no role'}"
            continue
        want = {pod.name for pod in every if pod.role in roles and pod.leads}
        have = {pod.name for pod in chosen}
        yield from (f"{name(each)} misses {pod}" for pod in sorted(want - have))
        yield from (f"{name(each)} selects {pod}, which has no API" for pod in sorted(have - want))
        for port in spec["ports"]:
            target = port.get("targetPort", port["port"])
            for pod in chosen:
                if target not in ports(pod).values() and target not in ports(pod):
                    yield f"{name(each)}: port {port['port']} leads to {target}, {pod.name} has {ports(pod)}"
        if each["metadata"]["name"] in {lws["metadata"]["name"] for lws in of(objects, "LeaderWorkerSet")}:
            yield f"{name(each)} has the name of the Service that the LeaderWorkerSet's controller makes"
    served = {pod.role for each in of(objects, "Service") for pod in near(objects, each) if _selected(each, pod)}
    roles = {pod.role for pod in pods(objects) if pod.role}
    yield from (f"no Service selects {role} pods" for role in sorted(roles - served))


def ports(pod: Pod) -> dict[str, int]:
    """Name → number of a pod's ports."""
    listed = [port for container in pod.containers for port in container.get("ports", ())]
    return {port.get("name", str(port["containerPort"])): port["containerPort"] for port in listed}


def budgets(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """A disruption budget is about the pods of one role, and lets at least one go."""
    for each in of(objects, "PodDisruptionBudget"):
        spec = each["spec"]
        chosen = [pod for pod in near(objects, each) if selects(spec.get("selector"), pod.labels)]
        if len({pod.role for pod in chosen}) != 1:
            yield f"{name(each)} selects pods of {', '.join(sorted({pod.role for pod in chosen})) or 'no role'}"
        elif evictable(spec, len(chosen)) < 1:
            yield f"{name(each)} lets none of {len(chosen)} pods go: no node can be drained"


def evictable(spec: Object, count: int) -> int:
    """How many of `count` pods a budget lets go at once; percentages round up, as in Kubernetes."""
    if "maxUnavailable" in spec:
        return _share(spec["maxUnavailable"], count)
    return count - _share(spec.get("minAvailable", 1), count)


def _share(amount: int | str, count: int) -> int:
    return math.ceil(int(amount.rstrip("%")) * count / 100) if isinstance(amount, str) else amount


def recipe_file(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """The recipe travels byte for byte, and pods read it from where it is mounted; a new one starts new pods."""
    text = file.path.read_bytes()
    holders = {
        (namespace(each), each["metadata"]["name"]): key
        for each in of(objects, "ConfigMap")
        for key, value in each.get("data", {}).items()
        if value.encode() == text
    }
    if not holders:
        yield "no ConfigMap holds the recipe as it was written"
    for pod in pods(objects):
        volumes = {each["name"]: each for each in pod.spec.get("volumes", ())}
        for container in pod.containers if pod.role else ():
            given = {variable["name"]: variable.get("value", "") for variable in container.get("env", ())}
            path = PurePosixPath(given.get("HYPERPD_RECIPE", ""))
            shown = set()
            for mount in container.get("volumeMounts", ()):
                source = volumes.get(mount["name"], {}).get("configMap", {}).get("name", "")
                if key := holders.get((pod.namespace, source)):
                    shown.add(PurePosixPath(mount["mountPath"]) / key)
            if path not in shown:
                yield f"{pod.name}: reads the recipe from {path}, which is not the mounted one"
    for each in objects:
        for template in templates(each):
            if file.digest not in template.get("metadata", {}).get("annotations", {}).values():
                yield f"{name(each)}: its template does not say the recipe's digest"


def references(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """Volumes, accounts and scale targets exist."""
    rendered = {(namespace(each), name(each)) for each in objects}
    for each in objects:
        for template in templates(each):
            spec = template["spec"]
            volumes = {volume["name"] for volume in spec.get("volumes", ())}
            for container in [*spec.get("initContainers", ()), *spec["containers"]]:
                mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
                yield from (f"{name(each)}: no volume {mount}" for mount in sorted(mounts - volumes))
            account = spec.get("serviceAccountName", "default")
            if account != "default" and (namespace(each), f"ServiceAccount/{account}") not in rendered:
                yield f"{name(each)}: no ServiceAccount {account}"
            for volume in spec.get("volumes", ()):
                source = volume.get("configMap", {}).get("name")
                if source and (namespace(each), f"ConfigMap/{source}") not in rendered:
                    yield f"{name(each)}: no ConfigMap {source}"


def scaling(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """A ScaledObject scales a workload that is rendered, within the recipe's bounds; every role that asks has one."""
    bounds = {str(role): spec.autoscaling for role, spec in file.recipe.roles().items() if spec.autoscaling}
    scaled = set()
    for each in of(objects, "ScaledObject"):
        spec = each["spec"]
        target = f"{spec['scaleTargetRef'].get('kind', 'Deployment')}/{spec['scaleTargetRef']['name']}"
        targets = [body for body in objects if (name(body), namespace(body)) == (target, namespace(each))]
        versions = [body["apiVersion"] for body in targets]
        if versions != [spec["scaleTargetRef"].get("apiVersion", "apps/v1")]:
            yield f"{name(each)}: there is no {target} in {spec['scaleTargetRef'].get('apiVersion', 'apps/v1')}"
            continue
        low, high = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
        (body,) = targets
        replicas = body["spec"].get("replicas", 1)
        if not low <= replicas <= high:
            yield f"{name(each)}: {replicas} replicas are not within {low} to {high}"
        for role in {pod.role for pod in pods([body])}:
            scaled.add(role)
            if (wanted := bounds.get(role)) and (wanted.min, wanted.max) != (low, high):
                yield f"{name(each)}: {low} to {high}, the recipe says {wanted.min} to {wanted.max}"
    yield from (f"nothing scales {role}" for role in sorted(bounds.keys() - scaled))


def replicas(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """As many workers as the recipe says, each on as many machines; as many gateways."""
    if file.recipe.fabric == "local" and not file.recipe.aggregated:
        if [pod.role for pod in pods(objects)] != ["node"]:
            yield "the fabric is local, so all has to be one pod"
        return
    have = Counter(pod.role for pod in pods(objects) if pod.leads)
    parts = Counter(pod.role for pod in pods(objects))
    want = {str(role): (spec.replicas, spec.parallel.nodes) for role, spec in file.recipe.roles().items()}
    want["gateway"] = (file.recipe.gateway.replicas, 1)
    for role, (count, nodes) in want.items():
        if have[role] != count or parts[role] != count * nodes:
            yield f"{role}: {have[role]} on {parts[role]} machines, the recipe says {count} on {count * nodes}"


def monitors(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """A PodMonitor selects pods, and names ports they have."""
    for each in of(objects, "PodMonitor"):
        chosen = [pod for pod in near(objects, each) if selects(each["spec"]["selector"], pod.labels)]
        if not chosen:
            yield f"{name(each)} selects no pod"
        for endpoint in each["spec"]["podMetricsEndpoints"]:
            named = endpoint.get("port", endpoint.get("portNumber"))
            if not any(named in ports(pod) or named in ports(pod).values() for pod in chosen):
                yield f"{name(each)}: none of its pods has a port {named}"


def certificates(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """Who shows a certificate has it, is probed and scraped by TLS, and the gateway knows whose workers' are."""
    every = pods(objects)
    for pod in every:
        for path in (
            value for key, value in _given(pod).items() if key.endswith(("_CERT_FILE", "_KEY_FILE", "_CA_FILE"))
        ):
            if path not in _of_secrets(pod):
                yield f"{pod.name}: {path} is of no Secret that it mounts"
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = pod.containers[0].get(kind, {}).get("httpGet", {})
            if asked and (asked.get("scheme") == "HTTPS") != _shows(pod):
                yield f"{pod.name}: its {kind} is not by what it speaks"
    workers = {_shows(pod) for pod in every if pod.role in ("prefill", "decode", "aggregated")}
    for pod in (pod for pod in every if pod.role == "gateway"):
        if workers != {"HYPERPD_WORKERS_CA_FILE" in _given(pod)}:
            yield f"{pod.name}: TLS to workers is not what they speak"
    hosts = {f"{each['metadata']['name']}.{namespace(each)}.svc.cluster.local" for each in of(objects, "Service")}
    for each in of(objects, "Service"):
        if each["metadata"]["name"] == "gateway":
            (port,), (front, *_) = each["spec"]["ports"], [pod for pod in near(objects, each) if _selected(each, pod)]
            if (port.get("appProtocol"), port["name"]) != (("https", "https") if _shows(front) else (None, "http")):
                yield f"{name(each)}: its port does not say what the gateway speaks"
    for each in of(objects, "PodMonitor"):
        chosen = [pod for pod in near(objects, each) if selects(each["spec"]["selector"], pod.labels)]
        for endpoint in each["spec"]["podMetricsEndpoints"]:
            tls = {_shows(pod) and not (pod.role == "node" and "relabelings" in endpoint) for pod in chosen}
            if tls != {endpoint.get("scheme") == "https"}:
                yield f"{name(each)}: {endpoint['port']} is not asked by what it speaks"
            elif True in tls and endpoint["tlsConfig"]["serverName"] not in hosts:
                yield f"{name(each)}: {endpoint['port']} is asked for a name that no Service has"


def _given(pod: Pod) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in pod.containers[0].get("env", ())}


def _shows(pod: Pod) -> bool:
    return "HYPERPD_TLS_CERT_FILE" in _given(pod)


def _of_secrets(pod: Pod) -> set[str]:
    """Files of Secrets that its first container sees."""
    secrets = {volume["name"]: volume["secret"] for volume in pod.spec.get("volumes", ()) if "secret" in volume}
    return {
        f"{mount['mountPath']}/{item['path']}"
        for mount in pod.containers[0].get("volumeMounts", ())
        for item in secrets.get(mount["name"], {}).get("items", ())
    }


def environment(objects: Sequence[Object], file: RecipeFile) -> Iterator[str]:
    """Every variable is one the container knows; what it is told of DNS is a Service with that port."""
    services = {
        f"{each['metadata']['name']}.{namespace(each)}.svc.cluster.local:{port['port']}"
        for each in of(objects, "Service")
        for port in each["spec"]["ports"]
    }
    shown = {"status.podIP": "10.0.0.1", "status.hostIP": "10.0.0.2"}  # what the downward API puts in
    for pod in pods(objects):
        given = {}
        for variable in pod.containers[0].get("env", ()):
            if variable["name"].startswith(PREFIX):
                path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
                given[variable["name"].removeprefix(PREFIX).lower()] = variable.get("value", shown.get(path, ""))
        try:
            told = Environment.model_validate(given)
        except ValidationError as error:
            yield f"{pod.name}: {error}"
            continue
        if told.address != shown["status.podIP"]:
            yield f"{pod.name}: its address is {told.address}, not the pod's"
        for role in file.recipe.roles() if pod.role == "gateway" else ():
            hosts = [url.removeprefix("dns://") for url in getattr(told, role).split(",")]
            yield from (f"{pod.name}: no Service is {role} {host!r}" for host in hosts if host not in services)
        selected = str(pod.spec.get("nodeSelector", {}).get("node.kubernetes.io/instance-type", ""))
        if told.instance_type and told.instance_type.removeprefix("ml.") != selected.removeprefix("ml."):
            yield f"{pod.name}: told to be on {told.instance_type}, its nodeSelector says {selected or 'nothing'}"


def _selected(service: Object, pod: Pod) -> bool:
    labels = service["spec"].get("selector")
    return bool(labels) and selects({"matchLabels": labels}, pod.labels)


CHECKS: tuple[Check, ...] = (
    identities,
    selectors,
    services,
    budgets,
    recipe_file,
    references,
    scaling,
    replicas,
    monitors,
    certificates,
    environment,
)
