"""What rendered objects make of a cluster, and say of each other.

The second half breaks a rendered object in each way that a check is for, and sees it reported.
"""

from __future__ import annotations

import pytest

from tests.deploy import (
    objects_lifetime,
    objects_recipes,
    objects_security,
    objects_wiring,
    simulator,
    simulator_checks,
)
from tests.deploy.objects import name, of, pods, selects, templates
from tests.deploy.objects_rendered import cases, rendered
from tests.deploy.simulator import GPU


@pytest.mark.parametrize(("recipe", "platform"), cases())
def test_pods_run_where_they_should(recipe, platform):
    found = simulator_checks.problems(
        rendered(recipe, platform), objects_recipes.load(recipe), hyperpod=platform == "hyperpod"
    )
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("recipe", "platform"), cases())
def test_objects_meet_each_other(recipe, platform):
    file = objects_recipes.load(recipe)
    objects = rendered(recipe, platform)
    found = objects_wiring.problems(objects, file)
    found += objects_lifetime.problems(objects, file.recipe)
    found += objects_security.outside(objects)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("recipe", "platform"), cases())
def test_the_namespace_admits_the_pods_and_no_more_than_needed(recipe, platform):
    objects = rendered(recipe, platform)
    every = pods(objects)
    assert list(objects_security.not_admitted(objects, every)) == []
    for pod in every:
        if pod.role == "gateway":
            assert list(objects_security.restricted(pod.spec)) == []
    efa = objects_recipes.load(recipe).recipe.fabric == "efa"
    for room in of(objects, "Namespace"):
        level = room["metadata"]["labels"][objects_security.LEVEL]
        here = [pod for pod in every if pod.namespace == room["metadata"]["name"]]
        needs = [pod.name for pod in here if list(objects_security.baseline(pod.spec))]
        assert level == ("privileged" if needs else "restricted"), f"{level}, and what fails baseline: {needs}"
        if efa and {"prefill", "decode"} & {pod.role for pod in here}:
            assert needs, "engines lock memory for the fabric"
        if not efa:  # CUDA IPC and TCP register no memory
            assert "IPC_LOCK" not in str([pod.spec for pod in here])


def _wiring(objects, recipe):
    file = objects_recipes.load(recipe)
    found = [*objects_wiring.problems(objects, file), *objects_lifetime.problems(objects, file.recipe)]
    return "\n".join(
        [*found, *objects_security.not_admitted(objects, pods(objects)), *objects_security.outside(objects)]
    )


def _specs(objects, *roles):
    """The pod specs of some roles, in place."""
    for body in objects:
        if any(pod.role in roles for pod in pods([body])):
            yield from (template["spec"] for template in templates(body))


def _of_role(objects, role):
    return next(body for body in objects if any(pod.role == role for pod in pods([body])))


def _without_affinity(objects, kind):
    for spec in _specs(objects, "prefill", "decode", "aggregated"):
        spec.get("affinity", {}).pop(kind, None)


def test_teeth_prefill_and_decode_on_one_efa_node():
    objects, file = rendered("efa-2p2d", "hyperpod"), objects_recipes.load("efa-2p2d")
    _without_affinity(objects, "podAntiAffinity")
    assert "share the EFA node" in "\n".join(simulator_checks.problems(objects, file))


def test_teeth_two_zones():
    objects, file = rendered("efa-2p2d", "hyperpod"), objects_recipes.load("efa-2p2d")
    _without_affinity(objects, "podAffinity")
    assert "workers are in use2-az1 and use2-az2" in simulator_checks.problems(objects, file)


def test_teeth_local_workers_on_two_machines():
    objects, file = rendered("tiny-gpu-1p1d", "hyperpod"), objects_recipes.load("tiny-gpu-1p1d")
    of(objects, "Deployment")[0]["spec"]["replicas"] = 2
    assert "the fabric is local" in "\n".join(simulator_checks.problems(objects, file))
    assert "all has to be one pod" in _wiring(objects, "tiny-gpu-1p1d")


def test_teeth_an_unhealthy_node():
    objects, file = rendered("efa-2p2d", "hyperpod"), objects_recipes.load("efa-2p2d")
    for spec in _specs(objects, "prefill"):
        spec["nodeSelector"] = {key: value for key, value in spec["nodeSelector"].items() if key != simulator.HEALTH}
        spec["tolerations"] = [{"operator": "Exists"}]
    assert "runs on an unhealthy node" in "\n".join(simulator_checks.problems(objects, file))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: spec.pop("tolerations"), "nodes: taint nvidia.com/gpu"),
        (lambda spec: spec["nodeSelector"].update({simulator.INSTANCE_TYPE: "p5en.48xlarge"}), "nodeSelector"),
        (lambda spec: _resource(spec, GPU, 9), "insufficient nvidia.com/gpu"),
        (lambda spec: _resource(spec, simulator.EFA, 17), "insufficient vpc.amazonaws.com/efa"),
        (lambda spec: _resource(spec, simulator.EFA, 16), "its share of ml.p5en.48xlarge is 2"),
        (lambda spec: _resource(spec, simulator.HUGEPAGES, "20Gi"), "insufficient hugepages-2Mi"),
        (lambda spec: _resource(spec, "memory", "3Ti"), "insufficient memory"),
        (lambda spec: _resource(spec, simulator.DISK, "84Gi"), "insufficient ephemeral-storage"),
    ],
)
def test_teeth_a_pod_that_fits_nowhere(change, said):
    objects, file = rendered("efa-2p2d", "hyperpod"), objects_recipes.load("efa-2p2d")
    for spec in _specs(objects, "prefill"):
        change(spec)
    assert said in "\n".join(simulator_checks.problems(objects, file))


def test_teeth_a_download_without_room():
    name = "gpt-oss-20b-g6e-1p1d"
    objects, file = rendered(name, "hyperpod"), objects_recipes.load(name)
    for spec in _specs(objects, "prefill"):
        del spec["containers"][0]["resources"]["requests"][simulator.DISK]
        next(volume for volume in spec["volumes"] if volume["name"] == "tmp")["emptyDir"]["sizeLimit"] = "5Gi"
    found = "\n".join(simulator_checks.problems(objects, file))
    assert "prefill-0 asks for 0 bytes of disk, its model has 13761264768" in found
    assert "prefill-0 limits /tmp to 5368709120 bytes of disk" in found


def test_teeth_a_cpu_machine_of_the_other_platform():
    objects, file = rendered("cpu-machines", "hyperpod"), objects_recipes.load("cpu-machines")
    assert "the node has m5.4xlarge" in "\n".join(simulator_checks.problems(objects, file, hyperpod=False))


@pytest.mark.parametrize(
    ("recipe", "role", "needed_s"),
    [
        ("gpt-oss-120b-p6-b200-4p1d", "node", 1800 + 1200 + 120 + 2 * 30 + 2 * 35),
        ("efa-2p2d", "gateway", 900 + 1200 + 120),
        ("efa-2p2d", "prefill", 900 + 1200 + 2 + 120 + 35),
    ],
)
def test_teeth_a_rollout_given_up_while_it_starts(recipe, role, needed_s):
    """Kubernetes' own 600 s are less than an image and a model take, and a gateway waits for both."""
    objects = rendered(recipe, "hyperpod")
    del _of_role(objects, role)["spec"]["progressDeadlineSeconds"]
    assert f"given up after 600 s, a pod may take {needed_s} s" in _wiring(objects, recipe)


@pytest.mark.parametrize(
    ("recipe", "role", "needed_s"),
    [
        ("efa-2p2d", "gateway", 5 + 2 * 30),
        ("gpt-oss-120b-p5en-4xtp4", "aggregated", 2 * 30 + 2 + 35),
        ("gpt-oss-120b-p6-b200-4p1d", "node", 2 * 30 + 2 * 35),
    ],
)
def test_teeth_a_front_killed_while_it_drains(recipe, role, needed_s):
    objects = rendered(recipe, "hyperpod")
    next(_specs(objects, role))["terminationGracePeriodSeconds"] = needed_s
    assert f"an orderly end takes up to {needed_s} s" in _wiring(objects, recipe)


def test_teeth_a_follower_killed_before_its_leader_has_ended():
    objects = rendered("efa-two-nodes", "hyperpod")
    templates(_of_role(objects, "decode"))[1]["spec"]["terminationGracePeriodSeconds"] = 2 + 120 + 35 + 35
    assert "decode-groups-0-1: killed 192 s after SIGTERM" in _wiring(objects, "efa-two-nodes")


def test_teeth_a_follower_killed_while_it_waits_for_its_leader():
    objects = rendered("efa-two-nodes", "hyperpod")
    probe = templates(_of_role(objects, "decode"))[1]["spec"]["containers"][0]["startupProbe"]
    probe["failureThreshold"] = 1020 // probe["periodSeconds"]  # a leader's
    assert "decode-groups-0-1: killed after 1020 s, the recipe gives 1800" in _wiring(objects, "efa-two-nodes")


def _resource(spec, resource, amount):
    for kind in ("requests", "limits"):
        spec["containers"][0]["resources"].setdefault(kind, {})[resource] = amount


def _container(objects, role):
    return next(_specs(objects, role))["containers"][0]


def _drop(objects, kind, called=""):
    objects[:] = [body for body in objects if body["kind"] != kind or called not in body["metadata"]["name"]]


def _service(objects, role):
    """The Service that selects a role's pods."""
    made = [pod for pod in pods(objects) if pod.role == role]
    return next(
        body
        for body in of(objects, "Service")
        if any(selects({"matchLabels": body["spec"]["selector"]}, p.labels) for p in made)
    )


def _every_pod_selected(objects):
    """Without the label that tells prefill from decode."""
    labels = _service(objects, "prefill")["spec"]["selector"]
    (decode, *_) = (pod for pod in pods(objects) if pod.role == "decode")
    for key in [key for key in labels if labels[key] != decode.labels.get(key)]:
        del labels[key]


def _wrong_selector(objects):
    _of_role(objects, "gateway")["spec"]["selector"]["matchLabels"] = {"app": "other"}


def _short_grace(objects):
    next(_specs(objects, "prefill"))["terminationGracePeriodSeconds"] = 157  # 2 + 30 + 5 + a lease of 120


def _another_recipe(objects):
    for body in of(objects, "ConfigMap"):
        body["data"] = {key: value + "\n" for key, value in body["data"].items()}


def _tight_budget(objects):
    of(objects, "PodDisruptionBudget")[0]["spec"] |= {"maxUnavailable": 0}


def _lost_budget(objects):
    of(objects, "PodDisruptionBudget")[0]["spec"]["selector"] = {"matchLabels": {"app": "other"}}


def _no_scale_target(objects):
    of(objects, "ScaledObject")[0]["spec"]["scaleTargetRef"]["name"] = "other"


def _scale_bounds(objects):
    of(objects, "ScaledObject")[0]["spec"] |= {"minReplicaCount": 7, "maxReplicaCount": 8}


def _variable(objects, role, called, **changed):
    next(each for each in _container(objects, role)["env"] if each["name"] == called).update(changed)


def _no_digest(objects):
    templates(_of_role(objects, "decode"))[0]["metadata"]["annotations"] = {}


def _blind_monitor(objects):
    of(objects, "PodMonitor")[0]["spec"]["selector"] = {"matchLabels": {"app": "other"}}


def _monitor_of_no_port(objects):
    of(objects, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0]["port"] = "other"


def _other_namespace(objects):
    _service(objects, "prefill")["metadata"]["namespace"] = "hyperpd"


def _no_address(objects):
    env = _container(objects, "decode")["env"]
    env[:] = [each for each in env if each["name"] != "HYPERPD_ADDRESS"]


def _restricted(objects):
    of(objects, "Namespace")[0]["metadata"]["labels"][objects_security.LEVEL] = "restricted"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda objects: _container(objects, "prefill")["startupProbe"].update(failureThreshold=1),
            "the recipe gives 900",
        ),
        (lambda objects: _container(objects, "prefill").pop("startupProbe"), "killed after 0 s"),
        (_short_grace, "an orderly end takes up to 157 s"),
        (_every_pod_selected, "selects pods of"),
        (lambda objects: _service(objects, "gateway")["spec"]["ports"][0].update(targetPort=9), "leads to 9"),
        (lambda objects: _drop(objects, "Service"), "no Service selects gateway pods"),
        (_wrong_selector, "its selector misses its own"),
        (_tight_budget, "no node can be drained"),
        (_lost_budget, "no role"),
        (_another_recipe, "no ConfigMap holds the recipe"),
        (lambda objects: _drop(objects, "ConfigMap"), "no ConfigMap"),
        (lambda objects: _container(objects, "decode").update(volumeMounts=[]), "reads the recipe from"),
        (_no_scale_target, "there is no"),
        (_scale_bounds, "are not within 7 to 8"),
        (lambda objects: _drop(objects, "ScaledObject"), "nothing scales decode"),
        (_restricted, "its namespace is restricted"),
        (lambda objects: _variable(objects, "decode", "HYPERPD_STATE_DIR", name="HYPERPD_STATEDIR"), "statedir"),
        (
            lambda objects: _variable(objects, "gateway", "HYPERPD_DECODE", value="dns://decode:8100"),
            "no Service is decode",
        ),
        (_no_address, "its address is 127.0.0.1"),
        (_other_namespace, "no Service is prefill"),
        (_no_digest, "does not say the recipe's digest"),
        (_blind_monitor, "selects no pod"),
        (_monitor_of_no_port, "has a port other"),
        (lambda objects: _drop(objects, "ServiceAccount"), "no ServiceAccount"),
        (lambda objects: objects.append(objects[0]), "rendered 2 times"),
        (lambda objects: objects.reverse(), "is not among the first objects"),
        (lambda objects: _of_role(objects, "decode")["spec"].update(replicas=5), "the recipe says 2 on 2"),
        (lambda objects: objects[-1]["metadata"].update(namespace="elsewhere"), "is in namespace elsewhere"),
    ],
)
def test_teeth_of_wiring(change, said):
    objects = rendered("efa-2p2d", "hyperpod")
    assert said not in _wiring(objects, "efa-2p2d")
    change(objects)
    assert said in _wiring(objects, "efa-2p2d")


def test_teeth_spread_workers_leave_the_other_role_no_machine():
    objects, file = rendered("efa-2p2d", "hyperpod"), objects_recipes.load("efa-2p2d")
    for spec in _specs(objects, "prefill", "decode"):
        del spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert "finds no room on 2 ml.p5en.48xlarge" in "\n".join(simulator_checks.problems(objects, file))


def test_teeth_a_machine_of_another_type():
    objects = rendered("efa-full-nodes", "hyperpod")
    _variable(objects, "prefill", "HYPERPD_INSTANCE_TYPE", value="ml.p5en.48xlarge")
    assert "told to be on ml.p5en.48xlarge" in _wiring(objects, "efa-full-nodes")


def test_teeth_a_service_with_the_name_of_a_leader_worker_set():
    """Its controller makes one of that name, for all pods of a group."""
    objects = rendered("efa-two-nodes", "hyperpod")
    _service(objects, "decode")["metadata"]["name"] = _of_role(objects, "decode")["metadata"]["name"]
    assert "has the name of the Service" in _wiring(objects, "efa-two-nodes")


def test_teeth_a_service_that_selects_followers():
    objects = rendered("efa-two-nodes", "hyperpod")
    labels = _service(objects, "decode")["spec"]["selector"]
    for key in [key for key in labels if key.endswith("worker-index")]:
        del labels[key]
    assert "which has no API" in _wiring(objects, "efa-two-nodes")
    assert name(_of_role(objects, "decode")).startswith("LeaderWorkerSet/")


def test_teeth_plain_http_where_tls_is_spoken():
    objects = rendered("tcp-1p1d", "hyperpod")
    assert _wiring(objects, "tcp-1p1d") == ""
    for spec in _specs(objects, "prefill"):
        del spec["containers"][0]["livenessProbe"]["httpGet"]["scheme"]
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "tls"]
    for spec in _specs(objects, "gateway"):
        (variable,) = [one for one in spec["containers"][0]["env"] if one["name"] == "HYPERPD_WORKERS_CA_FILE"]
        spec["containers"][0]["env"].remove(variable)
    engines, gateway = of(objects, "PodMonitor")
    del engines["spec"]["podMetricsEndpoints"][1]["scheme"]
    gateway["spec"]["podMetricsEndpoints"][0]["tlsConfig"]["serverName"] = "gateway"
    (service,) = [body for body in of(objects, "Service") if body["metadata"]["name"] == "gateway"]
    del service["spec"]["ports"][0]["appProtocol"]
    found = _wiring(objects, "tcp-1p1d")
    for said in (
        "its livenessProbe is not by what it speaks",
        "/etc/hyperpd-tls/tls.key is of no Secret that it mounts",
        "TLS to workers is not what they speak",
        "PodMonitor/engines: admin is not asked by what it speaks",
        "PodMonitor/gateway: admin is asked for a name that no Service has",
        "Service/gateway: its port does not say what the gateway speaks",
    ):
        assert said in found
