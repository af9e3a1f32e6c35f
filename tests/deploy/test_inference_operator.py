"""The target inference_operator: three forms as they were last looked at, what is refused and lost, what options do.

A snapshot that is missing is written, and its test fails once: look at it, then commit it.
"""

from __future__ import annotations

import json
import time

import pytest
import yaml

from hyperpd import deploy, recipe
from hyperpd.deploy import inference_operator
from hyperpd.deploy.inference_operator.serving import NOT_PASSED
from hyperpd.deploy.target import fate, leaves
from hyperpd.errors import RecipeError
from tests.deploy import objects_recipes, snapshot
from tests.deploy.objects_rendered import asked
from tests.deploy.operator_rendered import (
    AMP,
    FRONT,
    IMAGE,
    NO_FRONT,
    REFUSED,
    TOKEN,
    endpoint,
    gpu,
    settings,
    taken,
)

OWN = ("own_image=true", f"image={IMAGE}")

PAIR = """version: 1
name: pair
model: {huggingface: example/small}
prefill: {replicas: 3, instance_type: ml.p5.48xlarge, parallel: {data: 8, expert: true}, engine: {max-num-seqs: 16}}
decode: {instance_type: ml.p5en.48xlarge, parallel: {tensor: 8}}
"""
AGGREGATED = """version: 1
name: aggregated.1
description: One role
model: {path: /fsx/models/llama, claim: fsx-models}
aggregated: {replicas: 2, instance_type: ml.g6e.12xlarge, parallel: {tensor: 4}, autoscaling: {min: 1, max: 4}}
gateway: {limits: {concurrent_requests: 64}}
"""
S3 = """version: 1
name: s3
model: {s3: "s3://models-example/llama/70b"}
aggregated: {instance_type: ml.g6e.12xlarge}
"""
HUB = S3.replace('s3: "s3://models-example/llama/70b"', "huggingface: example/small")
FOLDER = S3.replace('s3: "s3://models-example/llama/70b"', "path: /opt/dlami/nvme/llama")
CASES = {
    "operator-pair": ("llama-3.3-70b-p5en-4p2d", [AMP, "hf_token_secret=hub"]),
    "operator-aggregated": (AGGREGATED, [AMP]),
    "operator-front": ("llama-3.3-70b-p5en-4p2d", list(FRONT)),
    "operator-own-image": (PAIR, list(OWN)),
}


@pytest.fixture
def spec(load):
    """(text of a recipe, settings) → the endpoint's spec."""

    def of(text, *given):
        return deploy.render(load(text), "inference_operator", given).documents[-1].body["spec"]

    return of


@pytest.fixture
def lost(load):
    """(text of a recipe, settings) → the paths of what is not expressed."""

    def of(text, *given):
        return [said.partition(":")[0] for said in deploy.render(load(text), "inference_operator", given).not_expressed]

    return of


@pytest.mark.parametrize("name", CASES)
def test_whole_renderings(name, load):
    text, given = CASES[name]
    file = load(text)
    rendering = deploy.render(file, "inference_operator", given)
    texts = deploy.texts(rendering, file, given)
    snapshot.hold(f"{name}.yaml", snapshot.joined(texts))
    assert [body for content in texts.values() for body in yaml.safe_load_all(content)] == [
        document.body for document in rendering.documents
    ]
    assert list(texts) == sorted(texts)  # as kubectl apply --filename FOLDER takes them
    for document in rendering.documents:
        snapshot.notes_meet_keys(document)


def test_rendering_costs_little():
    file = recipe.load("llama-3.3-70b-p5en-4p2d")
    deploy.render(file, "inference_operator", [AMP, TOKEN])
    began = time.process_time()
    deploy.texts(deploy.render(file, "inference_operator", [AMP, TOKEN]), file, [AMP, TOKEN])
    print(f"rendered in {(time.process_time() - began) * 1000:.0f} ms of CPU")


def test_every_field_has_a_fate():
    paths = list(leaves(recipe.Recipe))
    assert [path for path in paths if fate(inference_operator.FIELDS, path) is None] == []
    assert [k for k in inference_operator.FIELDS if not any(f"{path}.".startswith(f"{k}.") for path in paths)] == []


@pytest.mark.parametrize("name", gpu())
def test_every_gpu_recipe_is_taken_or_refused_with_the_field(name):
    file = objects_recipes.load(name)
    if name not in REFUSED:
        assert deploy.render(file, "inference_operator", settings(name)).documents
        return
    with pytest.raises(RecipeError) as error:
        deploy.render(file, "inference_operator", settings(name))
    assert any(problem.startswith(REFUSED[name]) for problem in error.value.problems), error.value


@pytest.mark.parametrize("name", NO_FRONT)
def test_no_front_where_it_would_find_nothing(name):
    with pytest.raises(RecipeError) as error:
        deploy.render(objects_recipes.load(name), "inference_operator", FRONT)
    assert NO_FRONT[name] in str(error.value)


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("tiny-cpu-1p1d", [], "accelerator: cpu"),
        ("tiny-cpu-1p1d", ["front=true", "image=a"], "front_instance_type: missing"),
        ("tiny-cpu-1p1d", ["front=true", "front_instance_type=ml.m5.2xlarge"], "image: the recipe names none"),
        ("tiny-cpu-1p1d", [*FRONT, "own_image=true"], "own_image: a front is always hyperpd's image"),
        ("tiny-cpu-1p1d", ["front=true", "image=a", "front_instance_type=m5.xlarge"], "front_instance_type: not"),
        (PAIR, ["front_instance_type=ml.m5.2xlarge"], "front_instance_type: goes with front"),
        (PAIR, ["own_image=true"], "image: the recipe names none"),
        (PAIR, [*OWN, "pd_buffer_gib=4"], "pd_buffer_gib: only AWS's image"),
        ("llama-3.3-70b-p5en-4p2d", [AMP], "model.huggingface: Hugging Face hands it out with a token alone"),
        (PAIR, [AMP], "prometheus: no role of this object has autoscaling"),
        (PAIR, ["region=us-east-2"], "region: nothing here comes from S3"),
        (PAIR, ["name=" + "a" * 40], "names_that_are_derived"),
        (PAIR, ["threshold=1"], "threshold: unknown key"),
        (S3, [], "model.s3: the operator has to know the bucket's region"),
        (S3, list(OWN), "model.s3: with own_image the one volume mount holds the recipe"),
        (S3, ["region=us-east-2", "hf_token_secret=hub"], "hf_token_secret: nothing of this object"),
        (AGGREGATED, [], "aggregated.autoscaling: the operator scales by metrics"),
        (AGGREGATED, ["prometheus=http://prometheus:9090"], "prometheus: not spelled"),
        (AGGREGATED.replace("64}}", "64}, auth: keys}"), [AMP], "gateway.auth: SageMaker takes the Authorization"),
        (HUB.replace("example/small", "gpt2"), [], "hub_model_is_named"),
        (HUB.replace("small}", "small, revision: main}"), [], "model.revision: main"),
        (HUB.replace("small}", "small, adapters: [{name: a, huggingface: b/c}]}"), [], "model.adapters"),
        (HUB.replace("small}", "small, adapters: [{name: a, path: /b}]}"), list(OWN), "model.adapters"),
        (HUB.replace("instance_type: ml.g6e.12xlarge", "replicas: 2"), [], "aggregated.instance_type: missing"),
        (HUB.replace("g6e.12xlarge", "g6e.13xlarge"), [], "nothing is known of ml.g6e.13xlarge"),
        (HUB.replace("12xlarge", "12xlarge, parallel: {tensor: 8}"), [], "aggregated.parallel: 8 GPUs"),
        (FOLDER.replace("/opt/dlami/nvme/llama", "models/llama"), [], "model.path: models/llama is not absolute"),
        (AGGREGATED.replace("/fsx", "/opt"), [AMP], "the claim would be mounted at /opt"),
        (PAIR.replace("prefill: {", "prefill: {kv_tiers: {managed: true}, "), list(OWN), "prefill.kv_tiers"),
        (PAIR + "kv_transfer: {fabric: tcp}\n", [], "kv_transfer.fabric: tcp"),
    ],
)
def test_refusals_name_the_field_or_option(text, given, said, load):
    file = load(text)
    with pytest.raises(RecipeError) as error:
        deploy.render(file, "inference_operator", given)
    assert said in str(error.value)


def test_the_comment_ends_in_a_request(load):
    """As it stands there, it is a command of a shell, whose body every form takes."""
    text = AGGREGATED.replace("name: aggregated.1", "name: a..b").replace("claim: fsx", "served_as: it's, claim: fsx")
    for given in ([AMP], list(FRONT)):
        file = load(text)
        made = deploy.texts(deploy.render(file, "inference_operator", given), file, given)["4-endpoint.yaml"]
        words = asked(made, "aws sagemaker-runtime invoke-endpoint")
        assert words[words.index("--endpoint-name") + 1] == yaml.safe_load(made)["spec"]["endpointName"] == "a--b"
        body = json.loads(words[words.index("--body") + 1])
        assert (body["model"], [one["role"] for one in body["messages"]]) == ("it's", ["user"])
    without = [AMP, "sagemaker_endpoint=false"]
    assert "invoke-endpoint" not in str(deploy.texts(deploy.render(file, "inference_operator", without), file, without))


def test_every_problem_at_once(load):
    with pytest.raises(RecipeError) as error:
        deploy.render(load(AGGREGATED), "inference_operator", ["own_image=true", "region=us-east-2"])
    assert len(error.value.problems) == 4  # image, region, autoscaling, model.path


@pytest.mark.parametrize(
    ("text", "before", "setting"),
    [
        (PAIR, (), "namespace=team"),
        (PAIR, (), "name=other"),
        (PAIR, (), "sagemaker_endpoint=false"),
        (PAIR, (), "image=other"),
        (PAIR, ("image=a",), "own_image=true"),
        (PAIR, (), "hf_token_secret=hub"),
        (PAIR, (), "pd_buffer_gib=16"),
        (S3, ("region=us-east-2",), "region=eu-west-1"),
        (AGGREGATED, (AMP,), AMP.replace("1a2b", "3c4d")),
        (PAIR, FRONT, "front_instance_type=ml.c5.4xlarge"),
        (PAIR, (), "front=true"),
    ],
)
def test_each_option_does_something(text, before, setting, load):
    file = load(text)
    if setting == "front=true":  # the machine goes with it
        before, added = ("image=a",), ["front=true", "front_instance_type=ml.m5.2xlarge"]
    else:
        added = [setting]
    kept = [one for one in before if one.partition("=")[0] != setting.partition("=")[0]]
    after = [*kept, *added]
    made = [deploy.render(file, "inference_operator", given).documents for given in (before, after)]
    assert made[0] != made[1]


def test_there_are_no_other_options():
    assert inference_operator.Options.model_fields.keys() == {
        *("namespace", "name", "sagemaker_endpoint", "image", "own_image", "hf_token_secret", "pd_buffer_gib"),
        *("region", "prometheus", "front", "front_instance_type"),
    }
    assert all(option.description for option in inference_operator.Options.model_fields.values())


def test_vllm_is_told_what_the_worker_would_be_told_and_no_more(spec):
    made = spec(PAIR)
    shared, prefill = made["worker"]["args"], made["pdSpec"]["prefillSpec"]["args"]
    assert shared[:4] == ["--model", "/opt/ml/model", "--served-model-name", "example/small"]
    assert shared[-4:] == ["--host", "0.0.0.0", "--port", str(made["worker"]["modelInvocationPort"]["containerPort"])]
    memory = ["--gpu-memory-utilization", "0.75"]
    sizes = ["--tensor-parallel-size", "1", "--enable-expert-parallel", "--data-parallel-size", "8"]
    assert prefill == [*sizes, "--max-num-seqs", "16", *memory]
    assert made["pdSpec"]["decodingSpec"]["args"] == ["--tensor-parallel-size", "8", *memory]
    for name in taken():
        made = endpoint(name, settings(name))["spec"]
        roles = [made["pdSpec"][role]["args"] for role in ("prefillSpec", "decodingSpec")] if "pdSpec" in made else []
        words = [word.partition("=")[0] for args in [made["worker"]["args"], *roles] for word in args]
        assert NOT_PASSED.keys() & set(words) <= {"--host", "--port"}
        assert all(words.count(word) == 1 for word in ("--model", "--host", "--port"))
        # The same option in both places would be replaced, and nobody would see which holds.
        flags = {word for word in made["worker"]["args"] if word.startswith("--")}
        assert not [word for args in roles for word in args if word in flags]


def test_a_memory_share_of_the_recipes_own_stays(spec):
    made = spec(PAIR.replace("max-num-seqs: 16", "gpu-memory-utilization: 0.6"))
    args = made["pdSpec"]["prefillSpec"]["args"]
    assert args[args.index("--gpu-memory-utilization") + 1] == "0.6"
    assert args.count("--gpu-memory-utilization") == 1


def test_an_option_of_the_authors_is_passed_whatever_it_is(spec):
    text = S3.replace("12xlarge}", "12xlarge, engine: {load-format: fastsafetensors}}")
    assert "fastsafetensors" in spec(text, "region=us-east-2")["worker"]["args"]
    assert "--load-format" not in spec(S3, "region=us-east-2")["worker"]["args"]


def test_two_kinds_of_machines_are_told_apart(spec):
    made = spec(PAIR)
    assert "instanceType" not in made
    assert made["instanceTypes"] == ["ml.p5.48xlarge", "ml.p5en.48xlarge"]
    selected = [made["pdSpec"][role]["nodeSelector"].popitem()[1] for role in ("prefillSpec", "decodingSpec")]
    assert selected == made["instanceTypes"]


@pytest.mark.parametrize(
    ("gateway", "threshold", "strategy", "said"),
    [
        ("{}", 0, "prefixaware", {"gateway.policy", "gateway.decider"}),  # 0: not the operator's 4096
        ("{threshold_tokens: 512}", 512, "prefixaware", {"gateway.policy", "gateway.decider"}),
        ("{policy: round_robin, decider: always}", 0, "roundrobin", set()),
    ],
)
def test_what_the_gateway_would_do_is_the_routers(gateway, threshold, strategy, said, spec, lost):
    text = PAIR + f"gateway: {gateway}\n"
    made = spec(text)
    assert made["pdSpec"]["routingThreshold"] == threshold
    assert made["intelligentRoutingSpec"]["routingStrategy"] == strategy
    assert {path for path in lost(text) if path.startswith("gateway.")} == said
    assert made["pdSpec"]["topologySpec"] == {"sameAZ": True}


def test_a_managed_tier_is_the_second_cache(spec):
    text = PAIR.replace("prefill: {", "prefill: {kv_tiers: {managed: true}, ")
    assert spec(text)["kvCacheSpec"]["l2CacheSpec"] == {"l2CacheBackend": "tieredstorage"}
    assert spec(text)["kvCacheSpec"]["enableL2Cache"]
    assert "l2CacheSpec" not in spec(PAIR)["kvCacheSpec"]


@pytest.mark.parametrize(
    ("text", "given", "source", "volume"),
    [
        (S3, ["region=us-east-2"], "s3", None),
        (HUB, [], "huggingface", None),
        (FOLDER, [], "kubernetesVolume", {"hostPath": {"path": "/opt/dlami/nvme/llama", "type": "Directory"}}),
        (
            AGGREGATED,
            [AMP],
            "kubernetesVolume",
            {"persistentVolumeClaim": {"claimName": "fsx-models", "readOnly": True}},
        ),
    ],
)
def test_where_a_model_comes_from(text, given, source, volume, spec):
    made = spec(text, *given)
    args = made["worker"]["args"]
    assert made["modelSourceConfig"]["modelSourceType"] == source
    assert args[args.index("--model") + 1].startswith(made["worker"]["modelVolumeMount"]["mountPath"])
    if volume:
        assert made["kubernetes"]["volumes"] == [{"name": "model-weights", **volume}]
    if source == "s3":
        where = {"bucketName": "models-example", "region": "us-east-2"}
        assert (made["modelSourceConfig"]["s3Storage"], made["modelSourceConfig"]["modelLocation"]) == (
            where,
            "llama/70b",
        )


@pytest.mark.parametrize(
    ("addition", "given", "paths"),
    [
        ("kv_transfer: {lease_s: 300, allow_tcp: true}\n", (), ["kv_transfer.allow_tcp", "kv_transfer.lease_s"]),
        ("kv_transfer: {lease_s: 300}\n", OWN, []),
        (
            "gateway: {replicas: 3, limits: {concurrent_requests: 8}}\n",
            (),
            ["gateway.replicas", "gateway.limits.concurrent_requests"],
        ),
        ("slo: {ttft_ms: 500}\n", (), ["slo.ttft_ms"]),
        ("drain_s: 120\n", (), ["drain_s"]),
        ("image: a/b\n", (), ["image"]),
        ("image: a/b\n", OWN, []),
        ("start_timeout_s: 60\n", (), []),
        ("kv_transfer: {lease_s: 300}\nslo: {itl_ms: 20}\n", FRONT, ["slo.itl_ms", "kv_transfer"]),
    ],
)
def test_what_is_lost_is_listed(addition, given, paths, lost):
    before, after = lost(PAIR, *given), lost(PAIR + addition, *given)
    assert [path for path in after if path not in before] == paths


def test_what_a_front_leaves_to_the_other_rendering(lost):
    assert lost(PAIR, *FRONT) == ["model", "prefill", "decode", "metrics"]


def test_what_a_role_of_the_pair_lacks_is_always_listed(lost):
    for given in ((), OWN):
        assert [path for path in lost(PAIR, *given) if path.startswith("*")] == ["*.environment", "*.probes", "*.image"]
    assert not [path for path in lost(HUB) if path.startswith("*")]


def test_our_image_in_pd_spec_is_marked_wherever_it_is_met(load, lost):
    """Where it is rendered, in what is printed, and in the option's own words."""
    assert "own_image" in lost(PAIR, *OWN)
    assert "own_image" not in [*lost(PAIR), *lost(HUB, *OWN)]  # an aggregated worker hands nothing over
    file = load(PAIR)
    rendering = deploy.render(file, "inference_operator", OWN)
    assert "own_image probably does not work here" in rendering.documents[-1].comment
    said = deploy.texts(rendering, file, OWN)["4-endpoint.yaml"]
    assert "#   own_image: unverified, and in pdSpec it probably does not work" in said
    assert "probably does not work" in inference_operator.Options.model_fields["own_image"].description


@pytest.mark.parametrize(("text", "given"), [(PAIR, FRONT), (HUB, OWN)])
def test_only_the_api_listens_outside_the_pod(text, given, spec, lost):
    """Drain, metrics and the engine ask for no key."""
    made = spec(text, *given)
    worker = made["worker"]
    told = {one["name"]: one.get("value") for one in worker["environmentVariables"]}
    assert (told["HYPERPD_API_ADDRESS"], "HYPERPD_ADDRESS" in told) == ("0.0.0.0", False)
    api = worker["modelInvocationPort"]["containerPort"]
    assert {probe["httpGet"]["port"] for probe in worker["probes"].values()} == {api}
    assert made["metrics"]["modelMetrics"]["port"] != api
    assert "metrics" in lost(text, *given)


def test_what_is_lost_of_an_aggregated_recipe(lost):
    text = AGGREGATED.replace("64}}", "64, body_mib: 4}, threshold_tokens: 9, replicas: 3}")
    assert set(lost(text + "placement: {same_zone: false}\n", AMP)) == {
        *("gateway.policy", "gateway.threshold_tokens", "gateway.replicas", "gateway.limits.body_mib"),
        "placement.same_zone",
    }


def test_roles_that_may_share_a_machine_are_said(lost):
    assert not [path for path in lost(PAIR) if path.endswith("parallel")]
    assert "prefill.parallel" in lost(PAIR.replace("data: 8", "data: 4"))


def test_limits_and_probes_of_an_aggregated_worker(spec):
    worker = spec(AGGREGATED, AMP)["worker"]
    assert worker["requestLimits"] == {"maxConcurrentRequests": 64, "maxQueueSize": 0, "overflowStatusCode": 429}
    probes = worker["probes"]
    assert probes["startupProbe"]["periodSeconds"] * probes["startupProbe"]["failureThreshold"] >= 900
    assert {one["httpGet"]["path"] for one in probes.values()} == {"/health"}
    assert "requestLimits" not in spec(HUB)["worker"]
    assert spec(HUB, *OWN)["loadBalancer"]["healthCheckPath"] == "/ping"
