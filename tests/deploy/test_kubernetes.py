"""The target kubernetes: whole renderings as they were last looked at, what is refused, what each option does.

A snapshot that is missing is written, and its test fails once: look at it, then commit it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hyperpd import deploy, fabric, recipe
from hyperpd.deploy import kubernetes
from hyperpd.deploy import yaml as written_yaml
from hyperpd.deploy.kubernetes import lifetimes
from hyperpd.deploy.target import Document, fate, leaves, written
from hyperpd.errors import RecipeError
from hyperpd.placement import Ports
from hyperpd_runtime import node
from hyperpd_runtime.gateway import server, telemetry
from tests.deploy import flows, objects_recipes, objects_rendered, schema, snapshot

IMAGE = "image=123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"

EFA = """version: 1
name: efa
model: {path: /fsx/models/llama, claim: fsx-models, adapters: [{name: sql, path: /fsx/adapters/sql}]}
prefill:
  replicas: 2
  instance_type: ml.p5en.48xlarge
  autoscaling: {min: 1, max: 4}
  kv_tiers: {memory_gib: 64, disk: /opt/hyperpd/data/kv}
decode:
  replicas: 2
  instance_type: ml.p5en.48xlarge
  parallel: {tensor: 4}
  autoscaling: {min: 1, max: 2}
gateway: {replicas: 3, auth: keys}
slo: {ttft_ms: 800, itl_ms: 40}
kv_transfer: {lease_s: 300}
"""
LOCAL = """version: 1
name: local
model: {huggingface: example/large}
prefill: {replicas: 2, instance_type: ml.p6-b200.48xlarge}
decode: {instance_type: ml.p6-b200.48xlarge, parallel: {tensor: 4}}
kv_transfer: {fabric: local}
"""
GROUPS = """version: 1
name: groups
model: {s3: "s3://models-example/deepseek/v3"}
prefill: {replicas: 2, instance_type: ml.p5en.48xlarge, parallel: {data: 8, expert: true}}
decode: {instance_type: ml.p5en.48xlarge, parallel: {data: 16, expert: true, nodes: 2}}
start_timeout_s: 3600
"""
PAIR = """version: 1
name: pair
model: {huggingface: example/small}
prefill: {replicas: 3, instance_type: ml.p5.48xlarge}
decode: {instance_type: ml.p5.48xlarge, parallel: {tensor: 2}}
"""
AGGREGATED = """version: 1
name: aggregated
model: {huggingface: example/small}
aggregated: {replicas: 2, instance_type: ml.g6e.12xlarge, autoscaling: {min: 1, max: 4}}
slo: {ttft_ms: 800, itl_ms: 40}
gateway: {auth: keys}
"""
LARGE = (
    PAIR.replace("example/small", "meta-llama/Llama-3.3-70B-Instruct")
    .replace("prefill: {", "prefill: {parallel: {tensor: 4}, ")
    .replace("tensor: 2", "tensor: 4")
)
MANY = """version: 1
name: many
model: {huggingface: openai/gpt-oss-120b}
aggregated: {instance_type: ml.p5en.48xlarge, parallel: {tensor: 4}, autoscaling: {min: 1, max: 2}}
"""
CASES = {
    "tiny-cpu-1p1d": (None, [IMAGE]),
    "efa": (
        EFA,
        [
            *(IMAGE, "prometheus=http://prometheus.monitoring:9090", "keys_secret=keys"),
            *("tls_secret=gateway-tls", "workers_tls_secret=workers-tls"),
        ],
    ),
    "local": (
        LOCAL,
        [
            *(IMAGE, "cache_folder=/opt/hyperpd/data/models", "hf_token_secret=hub", "platform=eks"),
            "tls_secret=tls",
        ],
    ),
    "groups": (GROUPS, [IMAGE, "queue=team", "priority_class=inference"]),
}


@pytest.fixture
def objects(load):
    """(text of a recipe, settings) → {kind/name: object}."""

    def of(text, *settings):
        given = [*([] if any(each.startswith("image=") for each in settings) else [IMAGE]), *settings]
        bodies = [document.body for document in deploy.render(load(text), "kubernetes", given).documents]
        return {f"{body['kind']}/{body['metadata']['name']}": body for body in bodies}

    return of


@pytest.mark.parametrize("name", CASES)
def test_whole_renderings(name, load):
    text, settings = CASES[name]
    file = load(text or name)
    rendering = deploy.render(file, "kubernetes", settings)
    texts = deploy.texts(rendering, file, settings)
    snapshot.hold(f"{name}.yaml", snapshot.joined(texts))
    back = [body for content in texts.values() for body in yaml.safe_load_all(content)]
    assert back == [document.body for document in rendering.documents]
    assert list(texts) == sorted(texts)  # as kubectl apply --filename FOLDER takes them
    assert [problem for document in rendering.documents for problem in schema.problems(document.body)] == []
    for document in rendering.documents:
        snapshot.notes_meet_keys(document)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.text("ab \n:#-'\"\t1.e{[", max_size=9),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    )
)
def test_yaml_says_what_was_meant(value):
    body = {"key": value, "yes": "on", "2": "0x1f", "sexagesimal": "12:30"}
    text = written_yaml.texts([Document("file", "why: # not\nwhat", body, {"key": "a note"})], {"a": "b"}, [])["file"]
    assert yaml.safe_load(text) == body


def test_the_same_bytes_in_every_process():
    script = (
        "from hyperpd import deploy, recipe; file = recipe.load('tiny-gpt-oss-4p1d');"
        "print(deploy.texts(deploy.render(file, 'kubernetes', ['image=a']), file, ['image=a']))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert said != {b""}


def test_rendering_costs_little():
    file, settings = recipe.load("deepseek-r1-p5en-1p1d"), [IMAGE, objects_rendered.FOLDER]
    deploy.render(file, "kubernetes", settings)
    began = time.process_time()
    deploy.texts(deploy.render(file, "kubernetes", settings), file, settings)
    print(f"rendered in {(time.process_time() - began) * 1000:.0f} ms of CPU")


def test_every_field_has_a_fate():
    paths = list(leaves(recipe.Recipe))
    assert [path for path in paths if fate(kubernetes.FIELDS, path) is None] == []
    assert [key for key in kubernetes.FIELDS if not any(f"{path}.".startswith(f"{key}.") for path in paths)] == []


SCALED = EFA.replace("auth: keys", "auth: none")


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        (PAIR, [], "image: the recipe names none"),
        (PAIR, [IMAGE, "namespace=No"], "namespace:"),
        (PAIR, [IMAGE, "namespace=" + "a" * 56], "namespace:"),
        (PAIR, [IMAGE, "quue=a"], "quue: unknown key; did you mean queue?"),
        (PAIR, [IMAGE, "priority_class=high"], "priority_class goes with queue"),
        (PAIR, [IMAGE, "keys_secret=keys"], "keys_secret: the recipe says gateway.auth: none"),
        (PAIR, [IMAGE, "prometheus=http://p"], "prometheus: no role has autoscaling"),
        (
            AGGREGATED,
            [IMAGE, "workers_tls_secret=a"],
            "workers_tls_secret: an aggregated worker has a front of its own",
        ),
        (LOCAL, [IMAGE, "workers_tls_secret=a"], "workers are in the gateway's pod; try tls_secret"),
        (PAIR, [IMAGE, "workers_tls_secret=a", "llm_d=true"], "workers_tls_secret: llm-d asks workers by plain HTTP"),
        (GROUPS, [IMAGE, "hf_token_secret=hub"], "hf_token_secret: nothing of this recipe comes from Hugging Face"),
        (LOCAL, [IMAGE, "hugepages_mib=5120"], "hugepages_mib: no worker uses EFA"),
        (PAIR, [IMAGE, "hugepages_mib=5118"], "hugepages_mib: below 5120 EFA uses none of them"),
        (PAIR, [IMAGE, "namespace=default"], "namespace: default is not hyperpd's alone"),
        (PAIR, [IMAGE, "namespace=kube-system"], "namespace: kube-system is not hyperpd's alone"),
        (PAIR, [IMAGE, "monitoring_pods=prometheus"], "monitoring_pods:"),
        (LARGE, [IMAGE], "model.huggingface: Hugging Face hands it out with a token alone; give --set hf_token_secret"),
        (LARGE, [IMAGE], "a pod downloads it for itself: 142 GiB of its machine's root volume needed, 83 available"),
        (
            MANY,
            [IMAGE],
            "model.huggingface: 2 pods of one ml.p5en.48xlarge download it, each for itself: 142 GiB of its root volume"
            " needed, 83 available; try --set cache_folder=…, or model.path, model.claim or model.s3",
        ),
        (
            PAIR.replace("example/small", "openai/gpt-oss-20b") + "kv_transfer: {fabric: tcp}\n",
            [IMAGE],
            "4 pods of one ml.p5.48xlarge download it, each for itself: 92 GiB of its root volume needed",
        ),
        (LOCAL.replace("local}", "local}\ngateway: {replicas: 2}"), [IMAGE], "gateway.replicas: with kv_transfer"),
        (SCALED, [IMAGE], "prefill.autoscaling: KEDA scales by metrics"),
        (EFA, [IMAGE, "prometheus=http://p"], "gateway.auth: keys needs the Secret"),
        (
            LOCAL.replace("local}", "local}\ngateway: {replicas: 3}"),
            [IMAGE],
            "gateway.replicas: with kv_transfer.fabric",
        ),
        (
            LOCAL.replace("{replicas: 2,", "{replicas: 2, autoscaling: {min: 1, max: 3},"),
            [IMAGE],
            "prefill.autoscaling",
        ),
        (LOCAL.replace("replicas: 2", "replicas: 5"), [IMAGE], "decode-0 needs 4 GPUs of one machine"),
        (
            LOCAL.replace("p6-b200.48xlarge, par", "p5.48xlarge, par"),
            [IMAGE],
            "all workers are on one machine; found 2",
        ),
        (PAIR.replace("tensor: 2", "tensor: 16"), [IMAGE], "decode.parallel: 16 GPUs on one machine"),
        (PAIR.replace("p5.48", "p5.49"), [IMAGE], "prefill.instance_type: nothing is known of ml.p5.49xlarge"),
        (PAIR.replace("ml.p5.48xlarge", "ml.g5.xlarge"), [IMAGE], "prefill.instance_type: ml.g5.xlarge has no EFA"),
        (PAIR.replace(", instance_type: ml.p5.48xlarge}", "}"), [IMAGE], "prefill.instance_type: missing"),
        (PAIR + "kv_transfer: {fabric: infiniband}\n", [IMAGE], "neither HyperPod nor EKS machines have InfiniBand"),
        (GROUPS.replace("data: 16", "data: 8"), [IMAGE], "decode.parallel.nodes: a worker over several machines"),
        (PAIR.replace("huggingface: example/small", "path: models/a"), [IMAGE], "model.path: models/a is not absolute"),
        (PAIR.replace("huggingface: example/small", "path: /tmp/a"), [IMAGE], "model.path: /tmp is the pod's own"),
        (EFA.replace("/fsx/models", "/opt/models"), [IMAGE], "the claim would be mounted at /opt"),
        (EFA.replace("memory_gib: 64", "memory_gib: 200"), [IMAGE], "prefill.kv_tiers.memory_gib: 200 GiB"),
        (PAIR, [IMAGE, "llm_d_registry=mirror.example"], "llm_d_registry goes with llm_d=true"),
        (LOCAL, [IMAGE, "llm_d=true"], "kv_transfer.fabric: local puts all workers into one pod"),
    ],
)
def test_refusals_name_the_field_or_option(text, settings, said, load):
    file = load(text)
    with pytest.raises(RecipeError) as error:
        deploy.render(file, "kubernetes", settings)
    assert said in str(error.value)


def test_every_problem_at_once(load):
    with pytest.raises(RecipeError) as error:
        deploy.render(load(EFA), "kubernetes", ["queue=a"])
    assert len(error.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (PAIR, "platform=eks"),
        (PAIR, "namespace=team"),
        (PAIR, "image=other"),
        (PAIR, "queue=team"),
        (PAIR, "monitoring_namespace=prometheus"),
        (PAIR, "clients_namespace=shop"),
        (PAIR, "privileged=true"),
        (PAIR, "hugepages_mib=5120"),
        (PAIR, "monitoring_pods=app=prometheus"),
        (PAIR, "hf_token_secret=hub"),
        (PAIR, "cache_folder=/opt/hyperpd/data/models"),
        (PAIR, "llm_d=true"),
        (PAIR, "tls_secret=tls"),
        (PAIR, "workers_tls_secret=tls"),
    ],
)
def test_each_option_does_something(text, setting, objects):
    assert objects(text, setting) != objects(text)


def test_the_options_that_need_each_other_are_the_rest():
    alone = {"platform", "namespace", "image", "queue", "monitoring_namespace", "clients_namespace", "privileged"}
    alone |= {"hugepages_mib", "hf_token_secret", "cache_folder", "monitoring_pods", "llm_d"}
    alone |= {"tls_secret", "workers_tls_secret"}
    others = {"priority_class", "prometheus", "keys_secret", "llm_d_registry"}
    assert kubernetes.Options.model_fields.keys() - alone == others
    assert all(option.description for option in kubernetes.Options.model_fields.values())


def _container(body):
    return body["spec"]["template"]["spec"]["containers"][0]


def test_a_worker_takes_its_share_of_a_machine(objects):
    found = objects(PAIR)
    one, two = (_container(found[f"Deployment/{role}"])["resources"]["limits"] for role in ("prefill", "decode"))
    assert (one["nvidia.com/gpu"], one["vpc.amazonaws.com/efa"]) == (1, 4)
    assert (two["nvidia.com/gpu"], two["vpc.amazonaws.com/efa"]) == (2, 8)
    assert int(one["memory"].removesuffix("Gi")) == int(two["memory"].removesuffix("Gi")) // 2


@pytest.mark.parametrize(("tensor", "pages"), [(2, None), (4, "5120Mi"), (8, "5120Mi")])
def test_huge_pages_as_many_as_efa_uses_or_none(tensor, pages, objects):
    """A pod with fewer could not use them: fabric.decide turns them off."""
    found = objects(PAIR.replace("tensor: 2", f"tensor: {tensor}"))
    assert _container(found["Deployment/decode"])["resources"]["limits"].get("hugepages-2Mi") == pages
    present = fabric.Present(efa=["a"], uverbs=1, memlock_unlimited=True, hugepages_mib=int((pages or "0Mi")[:-2]))
    used = fabric.decide("efa", "gpu", present).environment["FI_EFA_USE_HUGE_PAGE"]
    assert used == ("1" if pages else "0")


def test_what_downloads_too_much_for_a_root_volume_says_so():
    refused = {}
    for name in objects_recipes.names():
        given = [each for each in objects_rendered.settings(name, "hyperpod") if each != objects_rendered.FOLDER]
        try:
            deploy.render(objects_recipes.load(name), "kubernetes", given)
        except RecipeError as error:
            refused[name] = str(error)
    assert refused.keys() == objects_rendered.LARGE
    assert {"root volume needed, 83 available; try --set cache_folder=…" in said for said in refused.values()} == {True}


def test_each_pod_asks_for_the_room_of_its_download(objects):
    hub = MANY.replace("gpt-oss-120b", "gpt-oss-20b").replace(", autoscaling: {min: 1, max: 2}", "")
    pod = objects(hub)["Deployment/aggregated"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["requests"]["ephemeral-storage"] == "23Gi"
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "23Gi"}} in pod["volumes"]
    apart = objects(PAIR.replace("example/small", "openai/gpt-oss-20b"))  # over EFA roles share no machine
    assert "Deployment/prefill" in apart
    kept = objects(hub, "cache_folder=/opt/models")["Deployment/aggregated"]["spec"]["template"]["spec"]
    assert "ephemeral-storage" not in kept["containers"][0]["resources"]["requests"]
    unknown = objects(PAIR)["Deployment/prefill"]["spec"]["template"]["spec"]
    assert unknown["containers"][0]["resources"]["requests"]["ephemeral-storage"] == "10Gi"
    assert {"name": "tmp", "emptyDir": {}} in unknown["volumes"]


def test_numbers_of_the_runtime():
    """The light core may not import it, so some stand in both."""
    assert lifetimes.NOTICE_S == node._NOTICE_S
    assert lifetimes.KILL_S == node._KILL_S
    assert lifetimes.WARM_UP_S == server.WARM_UP_TIMEOUT_S


def test_what_the_author_wrote_counts_where_it_is_the_default(load):
    text = PAIR.replace("replicas: 3", "replicas: 1") + "gateway: {replicas: 2}\nslo: {ttft_ms: null}\n"
    paths = list(written(load(text).recipe))
    assert {"version", "prefill.replicas", "gateway.replicas"} <= set(paths)
    assert not [path for path in paths if path.startswith(("slo", "drain_s"))]


@pytest.mark.parametrize(
    ("text", "settings", "lost"),
    [
        (PAIR + "slo: {ttft_ms: 800, itl_ms: 40}\n", [], ["slo.ttft_ms: prefill has", "slo.itl_ms: decode has"]),
        (
            PAIR.replace("{replicas: 3,", "{replicas: 3, autoscaling: {min: 1, max: 4},")
            + "slo: {ttft_ms: 800, itl_ms: 40}\n",
            ["prometheus=http://p"],
            ["slo.itl_ms: decode has no autoscaling"],
        ),
        (AGGREGATED, ["prometheus=http://p", "keys_secret=keys"], []),
        (PAIR, ["queue=team"], []),
        (GROUPS, ["queue=team"], ["queue: prefill and decode are admitted apart, since a pod group cannot hold a"]),
        (
            PAIR.replace("{replicas: 3,", "{replicas: 3, autoscaling: {min: 1, max: 4},"),
            ["queue=team", "prometheus=http://p"],
            ["queue: prefill and decode are admitted apart, since a pod group's size is fixed"],
        ),
    ],
)
def test_what_is_not_expressed(text, settings, lost, load):
    found = deploy.render(load(text), "kubernetes", [IMAGE, *settings]).not_expressed
    assert len(found) == len(lost)
    for have, want in zip(found, lost, strict=True):
        assert have.startswith(want)


def test_missing_data_never_looks_like_no_load(objects):
    text = EFA.replace(
        "instance_type: ml.p5en.48xlarge\n  autoscaling: {min: 1, max: 4}",
        "instance_type: ml.p5en.48xlarge\n  parallel: {data: 4}\n  autoscaling: {min: 1, max: 4}",
    )
    found = objects(text, "prometheus=http://p", "keys_secret=keys")
    triggers = {
        each["name"]: each["metadata"]
        for role in ("prefill", "decode")
        for each in found[f"ScaledObject/{role}"]["spec"]["triggers"]
    }
    assert set(triggers) == {"prompts", "ttft", "kv-cache", "itl"}
    assert not [name for name, each in triggers.items() if "vector(" in each["query"]]
    assert {each["ignoreNullValues"] for each in triggers.values()} == {"false"}
    ours = {sample for each in triggers.values() for sample in re.findall(r"hyperpd_\w+", each["query"])}
    told = {sample.name for family in telemetry.registry.collect() for sample in family.samples}
    assert ours == {"hyperpd_first_event_seconds_bucket", "hyperpd_first_event_seconds_count"} & told
    assert triggers["prompts"]["threshold"] == "8"  # of 4 ranks
    aggregated = AGGREGATED.replace("ml.g6e.12xlarge", "ml.g6e.12xlarge, parallel: {data: 2}")
    waiting = objects(aggregated, "prometheus=http://p", "keys_secret=keys")["ScaledObject/aggregated"]
    assert waiting["spec"]["triggers"][0]["metadata"]["threshold"] == "2"


def test_a_cpu_recipe_may_name_its_machine(objects):
    text = "version: 1\nname: a\naccelerator: cpu\nmodel: {generated: tiny-llama}\n"
    text += "aggregated: {instance_type: ml.m5.xlarge}\n"
    for platform, name in (("hyperpod", "ml.m5.xlarge"), ("eks", "m5.xlarge")):
        pod = objects(text, f"platform={platform}")["Deployment/aggregated"]["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {"node.kubernetes.io/instance-type": name}


def test_comments_say_what_objects_cannot(load):
    """What else is in a namespace, a Deployment that stays, why there is no budget, what a policy cannot tell apart."""

    def comments(text, *settings):
        documents = deploy.render(load(text), "kubernetes", [IMAGE, *settings]).documents
        return {f"{one.body['kind']}/{one.body['metadata']['name']}": one.comment for one in documents}

    groups, local = comments(GROUPS), comments(LOCAL)
    for name in ("hyperpd", "hyperpd-engines"):
        assert "This namespace is hyperpd's alone" in groups[f"Namespace/{name}"]
    assert "kubectl --namespace hyperpd-engines delete deployment decode." in groups["LeaderWorkerSet/decode-groups"]
    assert "No disruption budget" in local["Deployment/node"]
    assert "could also ask for inference or a drain" in groups["NetworkPolicy/engines"]
    assert "a drain takes an operator's key" in groups["NetworkPolicy/gateway"]


def test_local_workers_lock_no_memory(objects):
    found = objects(LOCAL)
    labels = found["Namespace/hyperpd-engines"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert "add" not in _container(found["Deployment/node"])["securityContext"]["capabilities"]


def test_who_talks_over_efa(objects):
    aggregated = objects(AGGREGATED, "prometheus=http://p", "keys_secret=keys")["Deployment/aggregated"]
    assert "vpc.amazonaws.com/efa" not in _container(aggregated)["resources"]["limits"]
    assert "add" not in _container(aggregated)["securityContext"]["capabilities"]
    keys = {"name": "HYPERPD_KEYS_FILE", "value": "/etc/hyperpd-keys/keys.json"}
    assert keys in _container(aggregated)["env"]  # its own front asks for them


def test_both_roles_are_admitted_together_where_that_can_be(objects):
    pods = [objects(PAIR, "queue=team")[f"Deployment/{role}"]["spec"]["template"] for role in ("prefill", "decode")]
    for pod in pods:
        assert pod["metadata"]["labels"]["kueue.x-k8s.io/pod-group-name"] == "pair"
        assert pod["metadata"]["annotations"]["kueue.x-k8s.io/pod-group-total-count"] == "4"
    apart = objects(GROUPS, "queue=team")["Deployment/prefill"]["spec"]["template"]
    assert apart["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "kueue.x-k8s.io/pod-group-name" not in apart["metadata"]["labels"]


def test_a_privileged_engine_is_root_and_its_gateway_is_not(objects):
    found = objects(PAIR, "privileged=true")
    engine, gateway = (found[f"Deployment/{name}"]["spec"]["template"]["spec"] for name in ("prefill", "gateway"))
    assert engine["containers"][0]["securityContext"] == {"privileged": True, "readOnlyRootFilesystem": True}
    assert (engine["securityContext"]["runAsUser"], gateway["securityContext"]["runAsUser"]) == (0, 10001)


def test_a_tier_on_the_machine_of_its_own_daemon(objects):
    text = PAIR.replace("{replicas: 3,", "{replicas: 3, kv_tiers: {managed: true},")
    found = objects(text)
    names = [variable["name"] for variable in _container(found["Deployment/prefill"])["env"]]
    assert "HYPERPD_NODE_ADDRESS" in names
    rules = found["NetworkPolicy/engines"]["spec"]["egress"]
    (rule,) = (rule for rule in rules if {"port": 9200, "protocol": "TCP"} in rule.get("ports", ()))
    to = {peer["ipBlock"]["cidr"] for peer in rule["to"]}
    assert to == {"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"}


@pytest.mark.parametrize(
    ("source", "destination", "port", "passes"),
    [
        ("client", "gateway", Ports().gateway_api, True),
        ("client", "gateway", Ports().gateway_admin, False),
        ("client", "worker", Ports().worker_api, False),
        ("gateway", "worker", Ports().worker_api, True),
        ("gateway", "worker", Ports().worker_admin, True),
        ("gateway", "worker", Ports().side_channel, False),
        ("worker", "gateway", Ports().gateway_api, False),
        ("worker", "worker", 40000, True),
        ("worker", "internet", 443, True),
        ("worker", "API server", 443, False),
        ("gateway", "internet", 443, False),
        ("monitoring", "worker", Ports().worker_api, True),
        ("monitoring", "gateway", Ports().gateway_admin, True),
        ("monitoring", "worker", Ports().side_channel, False),
    ],
)
def test_who_reaches_whom(source, destination, port, passes, objects):
    assert _reaches(source, destination, port, objects(PAIR, "clients_namespace=shop")) is passes


@pytest.mark.parametrize("port", [Ports().kv_events, Ports().kv_replay])
def test_kv_events_are_for_the_gateway_alone(port, objects):
    exact = objects(PAIR + "gateway: {prefix_view: exact}", "clients_namespace=shop")
    assert _reaches("gateway", "worker", port, exact)
    assert not any(_reaches(source, "worker", port, exact) for source in ("client", "monitoring", "internet"))
    assert not _reaches("gateway", "worker", port, objects(PAIR, "clients_namespace=shop"))


def _reaches(source, destination, port, found):
    policies = [body for body in found.values() if body["kind"] == "NetworkPolicy"]

    def pod(name, namespace, labels):
        return flows.Actor(name, "10.0.1.1", namespace, {"kubernetes.io/metadata.name": namespace}, labels)

    labels = {
        name: found[f"Deployment/{name}"]["spec"]["template"]["metadata"]["labels"] for name in ("prefill", "gateway")
    }
    actors = {
        "client": pod("client", "shop", {}),
        "monitoring": pod("monitoring", "monitoring", {}),
        "gateway": pod("gateway", "hyperpd", labels["gateway"]),
        "worker": pod("prefill", "hyperpd-engines", labels["prefill"]),
        "internet": flows.Actor("internet", "203.0.113.9"),
        "API server": flows.Actor("API server", "10.100.0.1"),
    }
    return flows.allowed(policies, actors[source], actors[destination], "TCP", port)
