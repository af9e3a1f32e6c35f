"""What the target sagemaker_endpoint refuses, and how it says so."""

from __future__ import annotations

import pytest

from hyperpd import deploy, recipe
from hyperpd.deploy.sagemaker_endpoint.options import Ami
from hyperpd.errors import RecipeError
from tests.deploy.test_sagemaker_endpoint import AGGREGATED, BASE, CPU, DATA, EFA, IMAGE, LOCAL, ROLE

GATED = AGGREGATED.replace('s3: "s3://models-example/llama/8b"', "huggingface: meta-llama/Llama-3.3-70B-Instruct")
QWEN = "qwen3-32b-p5-8xtp2"


@pytest.fixture
def load(tmp_path):
    """A recipe from its text, or a shipped one by name."""

    def of(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return recipe.load(path if "\n" in text else text)

    return of


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        (LOCAL, [IMAGE, DATA], "role_arn: missing"),
        (LOCAL, ["role_arn=arn:aws:iam::1:role/a", IMAGE, DATA], "role_arn: not spelled as it has to be"),
        (LOCAL, [ROLE, DATA], "image: the recipe names none"),
        (LOCAL, [ROLE, "image=docker.io/vllm/vllm-openai:v0.32.0", DATA], "image: SageMaker pulls from Amazon ECR"),
        (LOCAL, [*BASE], "model: the container does not have this recipe"),
        (LOCAL, [*BASE, "model_data=s3://models-example"], "model_data: not spelled as it has to be"),
        (GATED, BASE, "model.huggingface: meta-llama/Llama-3.3-70B-Instruct is gated"),
        (LOCAL, [*BASE, DATA, "subnets=subnet-1"], "subnets and security_groups go together"),
        (LOCAL, [*BASE, DATA, "subnets=net-1", "security_groups=sg-1"], "subnets.0: "),
        (LOCAL, [*BASE, DATA, "endpoint_name=a_b"], "endpoint_name: not spelled as it has to be"),
        (LOCAL, [*BASE, DATA, "tags=team"], "tags.0: "),
        (LOCAL, [*BASE, DATA, "tags=AWS:team=a"], "tags: AWS:team: AWS keeps"),
        (LOCAL, [*BASE, DATA, "tags=team=a,team=b"], "tags: team is given twice"),
        (LOCAL, [*BASE, DATA, "tags=hyperpd:recipe=a"], "tags: hyperpd:recipe: hyperpd: says"),
        (LOCAL, [*BASE, DATA, "inference_ami=al2"], "inference_ami: Input should be"),
        (LOCAL, [*BASE, DATA, "volume_gb=100"], "volume_gb: ml.p5.48xlarge has disks of its own"),
        (LOCAL, [*BASE, DATA, "instance_type=ml.gr6.8xlarge"], "SageMaker has no endpoints on ml.gr6.8xlarge"),
        (LOCAL, [*BASE, DATA, "instance_type=ml.p5.49xlarge"], "nothing is known of ml.p5.49xlarge"),
        (
            LOCAL,
            [*BASE, DATA, "instance_type=ml.g6e.12xlarge"],
            "replicas: all workers are on one ml.g6e.12xlarge with 4 GPUs, and they take 6",
        ),
        (LOCAL.replace("/opt/ml/model/adapters", "/fsx"), [*BASE, DATA], "model.adapters.0.path: /fsx/sql is not in"),
        (
            LOCAL.replace("replicas: 2", "replicas: 5").replace("max: 4", "max: 6"),
            [*BASE, DATA],
            "replicas: all workers are on one",
        ),
        (LOCAL.replace("s: 3500", "s: 3601"), [*BASE, DATA], "start_timeout_s: SageMaker waits at most 3600 s"),
        (
            LOCAL.replace("{replicas: 3,", "{auth: keys,"),
            [*BASE, DATA],
            "gateway.auth: target sagemaker_endpoint refuses",
        ),
        (LOCAL.replace("{memory_gib: 64}", "{managed: true}"), [*BASE, DATA], "prefill.kv_tiers.managed: target"),
        (
            LOCAL.replace("gib: 64}", "gib: 64, disk: /opt/kv}"),
            [*BASE, DATA],
            "prefill.kv_tiers.disk: the container's user",
        ),
        (
            LOCAL.replace("huggingface: example/large, revision: abc", "path: /fsx/a, claim: c"),
            BASE,
            "model.claim: target",
        ),
        (LOCAL.replace("huggingface: example/large, revision: abc", "path: /fsx/a"), BASE, "model.path: an endpoint's"),
        (EFA, [*BASE, DATA], "kv_transfer.fabric: efa joins machines"),
        (EFA, [*BASE, DATA], "decode.instance_type: all workers are on one instance; found ml.p5.48xlarge and"),
        (EFA + "kv_transfer: {fabric: infiniband}\n", [*BASE, DATA], "kv_transfer.fabric: infiniband joins machines"),
        (
            AGGREGATED.replace("12xlarge", "12xlarge, parallel: {tensor: 4, nodes: 2}"),
            BASE,
            "aggregated.parallel.nodes",
        ),
        (AGGREGATED.replace(", instance_type: ml.g6e.12xlarge", ""), BASE, "instance_type: the recipe names none"),
        (QWEN, [*BASE, "instance_type=ml.g6e.xlarge"], "instance_type: qwen3-32b-p5-8xtp2 does not fit"),
        (LOCAL.replace("gib: 64", "gib: 600"), [*BASE, DATA], "prefill.kv_tiers.memory_gib: 1200 GiB"),
        ("tiny-cpu-1p1d", BASE, "instance_type: the recipe names none"),
        ("tiny-cpu-1p1d", [*BASE, "instance_type=ml.g6e.xlarge"], "ml.g6e.xlarge has GPUs"),
        ("tiny-cpu-1p1d", [*BASE, CPU, f"inference_ami={Ami.__args__[-1]}"], "inference_ami: it chooses GPU drivers"),
        ("tiny-cpu-1p1d", [*BASE, CPU, DATA], "model_data: the model is generated and the recipe shipped"),
    ],
)
def test_refusals_name_the_field_or_option(text, settings, said, load):
    with pytest.raises(RecipeError) as error:
        deploy.render(load(text), "sagemaker_endpoint", settings)
    assert said in str(error.value)


def test_a_gated_model_from_s3_is_as_any_other(load):
    text = GATED.replace("ml.g6e.12xlarge", "ml.p5en.48xlarge, parallel: {tensor: 2}")
    assert deploy.render(load(text), "sagemaker_endpoint", [*BASE, DATA]).documents


def test_every_problem_at_once(load):
    with pytest.raises(RecipeError) as error:
        deploy.render(load(EFA), "sagemaker_endpoint", [])
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "role_arn",
        "image",
        "model",
        "kv_transfer.fabric",
        "decode.instance_type",
    ]
