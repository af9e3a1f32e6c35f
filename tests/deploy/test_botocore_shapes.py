"""The strict validator has teeth that botocore's own lacks."""

from __future__ import annotations

import pytest

from tests.deploy import botocore_shapes

REQUEST = {
    "EndpointConfigName": "a",
    "ProductionVariants": [
        {"VariantName": "all", "ModelName": "m", "InstanceType": "ml.g6e.12xlarge", "InitialInstanceCount": 1}
    ],
    "Tags": [{"Key": "team:ä", "Value": ""}],
}


def problems(**changed):
    variant = {**REQUEST["ProductionVariants"][0], **changed.pop("variant", {})}
    return botocore_shapes.problems(
        "sagemaker", "CreateEndpointConfig", {**REQUEST, "ProductionVariants": [variant], **changed}
    )


def test_a_right_request_has_none():
    assert problems() == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"EndpointConfigName": "a_b"}, "EndpointConfigName: 'a_b' does not match"),
        ({"EndpointConfigName": "a" * 64}, "EndpointConfigName: 64 long is above 63"),
        (
            {"variant": {"InstanceType": "ml.g6e.13xlarge"}},
            "ProductionVariants.0.InstanceType: 'ml.g6e.13xlarge' is none",
        ),
        ({"variant": {"InitialInstanceCount": 0}}, "InitialInstanceCount: 0 is below 1"),
        ({"variant": {"InitialInstanceCount": True}}, "not a integer"),
        ({"variant": {"VolumeSizeInGB": 513}}, "513 is above 512"),
        ({"variant": {"VolumeSizeGB": 5}}, "no member VolumeSizeGB"),
        ({"ProductionVariants": []}, "0 long is below 1"),
        ({"Tags": [{"Key": "a"}]}, "Tags.0: Value is required"),
        ({"Tags": [{"Key": "a!", "Value": ""}]}, "Tags.0.Key: 'a!' does not match"),
    ],
)
def test_what_is_wrong_is_said(changed, said):
    assert said in "\n".join(problems(**changed))


def test_a_map_is_looked_into():
    container = {"Image": "i", "Environment": {"1 a": "b", "A": 1}}
    found = botocore_shapes.of_shape("sagemaker", "ContainerDefinition", container)
    assert len(found) == 2
    assert "Environment.key 1 a" in found[0]


def test_every_mutation_is_wrong_in_one_place():
    made = list(botocore_shapes.mutations("sagemaker", "CreateEndpointConfig", REQUEST))
    assert {one.what for one in made} == {"misspell", "drop", "type", "value"}
    assert len({str(one.request) for one in made}) == len(made)
    assert all(one.request != REQUEST for one in made)
