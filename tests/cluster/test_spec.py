"""The cluster file: strict, every problem at once, and the rules between its blocks."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from hyperpd.cluster import file, rules
from hyperpd.cluster.spec import ClusterSpec, InstanceGroup, schema
from hyperpd.errors import RecipeError
from tests.cluster.files import EKS, EKS_FULL, NETWORK, PLAN, SLURM, SLURM_FULL, merged, spec, written

ALL = {"eks": EKS, "slurm": SLURM, "eks, every field": EKS_FULL, "slurm, every field": SLURM_FULL}


def problems(document: dict[str, Any], **change: Any) -> list[str]:
    with pytest.raises(RecipeError) as error:
        spec(document, **change)
    return list(error.value.problems)


@pytest.mark.parametrize("name", ALL)
def test_right_files_are_taken_and_written_again_the_same(name, tmp_path):
    loaded = file.load(written(tmp_path, ALL[name]))
    assert file.parse(yaml.safe_load(file.dump(loaded)), "x") == loaded
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(ALL[name])))


def test_the_two_full_files_use_every_field():
    """So that what is said of them is said of every field."""
    used: set[str] = set()
    for document in (EKS_FULL, SLURM_FULL):
        used |= set(document)
        for group in document["groups"].values():
            used |= set(group)
    assert used | {"recipe"} == set(ClusterSpec.model_fields) | set(InstanceGroup.model_fields)


def test_every_problem_of_the_blocks_at_once():
    wrong = {
        "name": "p_d",
        "orchestrator": {"slurm": {}},
        "nmae": "x",
        "groups": {
            "prefill": {"cout": 1},
            "decode": {"min_count": 2, "training_plan": PLAN, "capacity": "spot", "instance_types": ["ml.p5.48xlarge"]},
            "x_y": {"count": 1},
        },
        "tags": {"aws:x": "1"},
    }
    assert problems(EKS, **wrong) == [
        "name: not spelled as it has to be; as in pd-1: letters, digits and hyphens between them (found 'p_d')",
        "orchestrator: give exactly one of eks and slurm",
        "groups.prefill.cout: unknown key; did you mean count?",
        "groups.decode: give instance_type or instance_types, not both; min_count (2) is above count (1); "
        "training_plan is the capacity; remove capacity: spot",
        "groups.x_y.[key]: not spelled as it has to be; as in pd-1: letters, digits and hyphens between them "
        "(found 'x_y')",
        "nmae: unknown key; did you mean name?",
    ]


def test_every_problem_between_blocks_at_once():
    found = problems(
        EKS,
        network=None,
        autoscaling={"role": "arn:aws:iam::123456789012:role/scaler"},
        groups={"prefill": {"instance_type": None, "count": None}, "decode": {"capacity": "spot"}},
    )
    assert [one.split(":")[0] for one in found] == [
        "groups.prefill.instance_type",
        "groups.prefill.count",
        "autoscaling",
        "groups.decode.capacity",
        "network.subnets",
        "network.security_groups",
    ]


G = dict[str, Any]
ONE: G = {"instance_type": "ml.p5.48xlarge", "count": 1}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # what the message has: (document, change)
    "Slurm needs exactly one group with slurm.node: controller (found: none)": (
        SLURM,
        {"groups": {"controller": None}},
    ),
    "Slurm needs exactly one group with slurm.node: controller (found: controller, more)": (
        SLURM,
        {"groups": {"more": ONE | {"slurm": {"node": "controller"}}}},
    ),
    "groups.controller.count: a controller is one node (found 2)": (SLURM, {"groups": {"controller": {"count": 2}}}),
    "groups.more.slurm: missing": (SLURM, {"groups": {"more": ONE}}),
    "nothing could run": (SLURM, {"groups": {"prefill": None}}),
    "give each its kind, or a lifecycle.on_create that starts Slurm": (
        SLURM,
        {"groups": {"prefill": {"slurm": None}, "controller": {"slurm": None}}},
    ),
    "groups.prefill.labels: Kubernetes' alone": (SLURM, {"groups": {"prefill": {"labels": {"a": "b"}}}}),
    "tiered_storage: HyperPod has it on EKS alone": (SLURM, {"tiered_storage": {}}),
    "an external database needs continuous: true": (SLURM_FULL, {"continuous": None}),
    "groups.prefill.slurm: has no meaning with orchestrator.eks": (
        EKS,
        {"groups": {"prefill": {"slurm": {"node": "compute"}}}},
    ),
    "groups.prefill.volumes.kms_key: HyperPod takes keys of one's own with continuous: true alone": (
        EKS,
        {"groups": {"prefill": {"volumes": [{"root": True, "kms_key": "alias/nodes"}]}}},
    ),
    "network.security_groups: a list is wanted, as in [a, b] (found 'sg-0123456789abcdef0')": (
        EKS,
        {"network": {"security_groups": "sg-0123456789abcdef0"}},
    ),
    "network.subnets.0: not spelled as it has to be; as in subnet-0123456789abcdef0 (found 'x')": (
        EKS,
        {"network": {"subnets": ["x"]}},
    ),
    "role: not spelled as it has to be; as in arn:aws:iam::": (EKS, {"role": "nodes"}),
    "groups.prefill.labels.a b.[key]: not spelled as it has to be; as in example.com/kind": (
        EKS,
        {"groups": {"prefill": {"labels": {"a b": "c"}}}},
    ),
    "groups.prefil.instance_type: missing; did you mean groups.prefill, which the recipe gives?": (
        {**EKS, "recipe": "qwen3-32b-p5-4p2d", "groups": {}},
        {"groups": {"prefil": {"count": 3}}},
    ),
    "spot needs continuous: true": (EKS, {"groups": {"prefill": {"capacity": "spot"}}}),
    "Karpenter needs continuous: true": (EKS, {"autoscaling": EKS_FULL["autoscaling"]}),
    "efa-only carries no IP, and the one interface of ml.g6e.12xlarge has to": (
        EKS,
        {"groups": {"prefill": {"instance_type": "ml.g6e.12xlarge", "interface": "efa-only"}}},
    ),
    "efa, and ml.g5.xlarge has no EFA device": (
        EKS,
        {"groups": {"prefill": {"instance_type": "ml.g5.xlarge", "interface": "efa"}}},
    ),
    "groups.prefill.network.subnets: missing": (
        EKS,
        {"groups": {"prefill": {"network": {"security_groups": ["sg-0123456789abcdef0"]}}}},
    ),
    "groups.prefill.network.security_groups: missing, and the cluster has none": (
        SLURM,
        {"groups": {"prefill": {"network": {"subnets": ["subnet-0123456789abcdef0"]}}}},
    ),
    "network.security_groups: missing; one goes with the other": (
        SLURM,
        {"network": {"subnets": ["subnet-0123456789abcdef0"]}},
    ),
    "groups.prefill.training_plan: is in us-east-1, the cluster is in eu-west-1": (
        EKS,
        {"region": "eu-west-1", "groups": {"prefill": {"training_plan": PLAN}}},
    ),
    "orchestrator.eks: is in us-east-1": (
        EKS,
        {"region": "eu-west-1", "orchestrator": {"eks": "arn:aws:eks:us-east-1:123456789012:cluster/prod"}},
    ),
    "min_count (3) is above count (2)": (EKS, {"groups": {"prefill": {"min_count": 3}}}),
    "a node has one second volume": (EKS, {"groups": {"prefill": {"volumes": [{"size_gb": 1}, {"size_gb": 2}]}}}),
    "the root volume takes kms_key alone": (EKS, {"groups": {"prefill": {"volumes": [{"root": True}]}}}),
    "size_gb: missing": (EKS, {"groups": {"prefill": {"volumes": [{}]}}}),
    "HyperPod takes four of them together": (
        EKS,
        {
            "groups": {
                "prefill": {
                    "volumes": [{"size_gb": 1}],
                    "openzfs": [{"dns": "fs-0123456789abcdef0.fsx.us-east-1.amazonaws.com"}] * 4,
                }
            }
        },
    ),
    "image_release is of HyperPod's own image": (
        EKS,
        {"groups": {"prefill": {"image": "ami-0123456789abcdef0", "image_release": "1.2.3"}}},
    ),
    "source none runs nothing": (EKS, {"lifecycle": {"source": "none", "on_create": "x.sh"}}),
    "source in S3 needs on_create or on_init_complete": (EKS, {"lifecycle": {"source": "s3://sagemaker-x/y"}}),
    "/nowhere is no folder": (EKS, {"lifecycle": {"source": "/nowhere"}}),
    "slurm.partition goes with node: compute, not controller": (
        SLURM,
        {"groups": {"controller": {"slurm": {"partition": "x"}}}},
    ),
    "groups: there is no group": (EKS, {"groups": None}),
    "tags: hyperpd:cluster begins with a word that is taken": (EKS, {"tags": {"hyperpd:cluster": "x"}}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_go_together_is_refused(message):
    document, change = REFUSED[message]
    found = problems(document, **change)
    assert len(found) == 1, found
    assert message in found[0]


def test_a_mapping_that_says_a_key_twice(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\nname: a\nname: b\n")
    with pytest.raises(RecipeError, match="name is written twice"):
        file.load(path)
    with pytest.raises(RecipeError, match="no such file"):
        file.load(tmp_path / "none.yaml")


def test_paths_count_from_the_files_folder(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "on_create.sh").write_text("true\n")
    path = written(tmp_path, EKS, lifecycle={"source": "scripts"})
    monkeypatch.chdir("/")
    assert file.load(path).lifecycle.source == str(tmp_path / "scripts")
    (tmp_path / "scripts" / "on_create.sh").unlink()
    with pytest.raises(RecipeError, match=r"there is no on_create\.sh in"):
        file.load(path)


def test_what_is_worth_a_look_is_said():
    said = spec(SLURM, continuous=True, groups={"prefill": {"min_count": 0}})
    notes = list(rules.notes(said, file.check(said)))
    assert [one.split(":")[0] for one in notes] == ["continuous", "continuous", "groups.prefill.min_count"]
    quiet = spec(EKS)
    assert list(rules.notes(quiet, file.check(quiet))) == []


def test_merging_documents_of_the_tests():
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None}, "d": NETWORK}) == {"a": {"c": 2}, "d": NETWORK}
