"""The target kubernetes: whole renderings as they were last looked at, what is refused, what each option does.

A snapshot that is missing is written, and its test fails once: look at it, then commit it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hyperpd import __version__, deploy, recipe
from hyperpd.deploy import kubernetes
from hyperpd.deploy import yaml as written_yaml
from hyperpd.deploy.target import Document, fate, leaves
from hyperpd.errors import RecipeError
from hyperpd.placement import Ports
from tests.deploy import flows, schema

SNAPSHOTS = Path(__file__).parent / "snapshots"
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
CASES = {
    "tiny-cpu-1p1d": (None, [IMAGE]),
    "efa": (EFA, [IMAGE, "prometheus=http://prometheus.monitoring:9090", "keys_secret=keys"]),
    "local": (LOCAL, [IMAGE, "cache_folder=/opt/hyperpd/data/models", "hf_token_secret=hub", "platform=eks"]),
    "groups": (GROUPS, [IMAGE, "queue=team", "priority_class=inference"]),
}


@pytest.fixture
def load(tmp_path):
    """A recipe from its text, or a shipped one by name."""

    def of(text):
        if "\n" not in text:
            return recipe.load(text)
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return recipe.load(path)

    return of


@pytest.fixture
def objects(load):
    """(text of a recipe, settings) → {kind/name: object}."""

    def of(text, *settings):
        bodies = [document.body for document in deploy.render(load(text), "kubernetes", [IMAGE, *settings]).documents]
        return {f"{body['kind']}/{body['metadata']['name']}": body for body in bodies}

    return of


@pytest.mark.parametrize("name", CASES)
def test_whole_renderings(name, load):
    text, settings = CASES[name]
    file = load(text or name)
    rendering = deploy.render(file, "kubernetes", settings)
    texts = deploy.texts(rendering, file, settings)
    said = "".join(f"##### {called}\n{content}" for called, content in texts.items())
    said = said.replace(f"hyperpd {__version__}:", "hyperpd VERSION:")
    path = SNAPSHOTS / f"{name}.yaml"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(said)
        pytest.fail(f"{path} is written: look at it, then commit it")
    assert said == path.read_text(), f"delete {path} to have it written anew"
    back = [body for content in texts.values() for body in yaml.safe_load_all(content)]
    assert back == [document.body for document in rendering.documents]
    assert list(texts) == sorted(texts)  # as kubectl apply --filename FOLDER takes them
    assert [problem for document in rendering.documents for problem in schema.problems(document.body)] == []
    for document in rendering.documents:
        for note in document.notes or {}:
            below = document.body
            for key in note.split("."):
                below = below[int(key)] if isinstance(below, list) else below[key]


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
    file = recipe.load("deepseek-r1-p5en-1p1d")
    deploy.render(file, "kubernetes", [IMAGE])
    began = time.process_time()
    deploy.texts(deploy.render(file, "kubernetes", [IMAGE]), file, [IMAGE])
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
        (GROUPS, [IMAGE, "hf_token_secret=hub"], "hf_token_secret: nothing of this recipe comes from Hugging Face"),
        (LOCAL, [IMAGE, "hugepages_mib=512"], "hugepages_mib: no worker uses EFA"),
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
        (PAIR, "hugepages_mib=512"),
        (PAIR, "hf_token_secret=hub"),
        (PAIR, "cache_folder=/opt/hyperpd/data/models"),
    ],
)
def test_each_option_does_something(text, setting, objects):
    assert objects(text, setting) != objects(text)


def test_the_options_that_need_each_other_are_the_rest():
    alone = {"platform", "namespace", "image", "queue", "monitoring_namespace", "clients_namespace", "privileged"}
    alone |= {"hugepages_mib", "hf_token_secret", "cache_folder"}
    assert kubernetes.Options.model_fields.keys() - alone == {"priority_class", "prometheus", "keys_secret"}
    assert all(option.description for option in kubernetes.Options.model_fields.values())


def _container(body):
    return body["spec"]["template"]["spec"]["containers"][0]


def test_a_worker_takes_its_share_of_a_machine(objects):
    found = objects(PAIR)
    one, two = (_container(found[f"Deployment/{role}"])["resources"]["limits"] for role in ("prefill", "decode"))
    assert (one["nvidia.com/gpu"], one["vpc.amazonaws.com/efa"], one["hugepages-2Mi"]) == (1, 4, "1280Mi")
    assert (two["nvidia.com/gpu"], two["vpc.amazonaws.com/efa"], two["hugepages-2Mi"]) == (2, 8, "2560Mi")
    assert int(one["memory"].removesuffix("Gi")) == int(two["memory"].removesuffix("Gi")) // 2


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
    assert {"port": 9200, "protocol": "TCP"} in [
        port for rule in found["NetworkPolicy/engines"]["spec"]["egress"] for port in rule.get("ports", ())
    ]


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
    found = objects(PAIR, "clients_namespace=shop")
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
    assert flows.allowed(policies, actors[source], actors[destination], "TCP", port) is passes
