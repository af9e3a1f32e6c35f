"""Every recipe for GPUs, rendered for the console; and templates with their functions worked out."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from hyperpd import deploy, models
from hyperpd.deploy import Rendering
from hyperpd.deploy.console import links
from hyperpd.recipe import RecipeFile, load, shipped

ACCOUNT, REGION = "123456789012", "us-east-1"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/team/hyperpd:0.1.0"  # of which a stack builds it
PINNED = f"{IMAGE.removesuffix(':0.1.0')}@sha256:" + "0" * 64  # which is there
SETTINGS = (f"region={REGION}", "bucket=sagemaker-example-files", f"image={IMAGE}", f"account={ACCOUNT}")
ORCHESTRATORS = ("eks", "slurm")
GIVEN = {
    "VpcId": "vpc-0123456789abcdef0",
    "SubnetId": "subnet-0123456789abcdef0",
    "EksClusterArn": f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/prod",
    "EksSecurityGroupId": "sg-0123456789abcdef0",
    "S3PrefixListId": "pl-63a5400a",
    "AvailabilityZone": f"{REGION}a",
    "EfaSha256": "0" * 64,
}
_PSEUDO = {"AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "AWS::Partition": "aws", "AWS::StackName": "hyperpd"}
_PSEUDO["AWS::URLSuffix"] = "amazonaws.com"
_PSEUDO["AWS::StackId"] = STACK = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/hyperpd-serve/1"
# What a resource's Ref and Fn::GetAtt give, where its form matters to others.
_ATTRIBUTES = {
    "Arn": f"arn:aws:iam::{ACCOUNT}:role/hyperpd-made",
    **dict.fromkeys(
        ("Log.Arn", "ApplyLog.Arn", "AskLog.Arn"), f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/hyperpd:*"
    ),
    "Endpoint": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/hyperpd-endpoint",
    "EndpointName": "hyperpd-endpoint",
    "Repository.Arn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/hyperpd",
    "GroupId": "sg-0aaaaaaaaaaaaaaaa",
    "Subnet": "subnet-0aaaaaaaaaaaaaaaa",
    "Vpc": "vpc-0aaaaaaaaaaaaaaaa",
}


def gpu_recipes() -> list[str]:
    """Names of the shipped recipes for GPUs, without those of gated models."""
    return [name for name in shipped() if load(name).recipe.accelerator == "gpu" and name not in gated_recipes()]


def gated_recipes() -> list[str]:
    """Those of models that Hugging Face asks a token for."""
    found = {name: models.find(load(name).recipe.model.huggingface) for name in shipped()}
    return [name for name, known in found.items() if known and known.gated]


@cache
def rendered(name: str, orchestrator: str, *more: str) -> Rendering:
    """A shipped recipe."""
    given = (*_settings(name, orchestrator), *more)
    settings = {one.partition("=")[0]: one for one in given}.values()  # the later instead of the earlier
    return deploy.render(load(name), "console", settings)


@cache
def texts(name: str, orchestrator: str) -> dict[str, str]:
    """Its files."""
    return deploy.texts(rendered(name, orchestrator), load(name), _settings(name, orchestrator))


def _settings(name: str, orchestrator: str) -> tuple[str, ...]:
    """With what somebody has to say where a recipe has no instance type, and where workers span nodes."""
    roles = load(name).recipe.roles().values()
    more = [] if all(spec.instance_type for spec in roles) else ["instance_type=ml.g6e.12xlarge"]
    more += ["leader_worker_set=true"] if orchestrator == "eks" and any(s.parallel.nodes > 1 for s in roles) else []
    return (*SETTINGS, f"orchestrator={orchestrator}", *more)


def templates(name: str, orchestrator: str) -> dict[str, dict[str, Any]]:
    """File name without folders → template, read from its text as CloudFormation would."""
    found = {path.rpartition("/")[2]: text for path, text in texts(name, orchestrator).items()}
    return {
        path: copy.deepcopy(_read(text))
        for path, text in found.items()
        if path[0].isdigit() and "-" in path and path.endswith(".yaml")
    }


@cache
def _read(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)


def addresses(page: str) -> list[dict[str, str]]:
    """What the page's quick-create addresses fill in; each is one, and short enough."""
    found = []
    for url in re.findall(r"^    (https://\S+)$", page, re.MULTILINE):
        assert len(url) <= links.URL_MAX
        assert urlsplit(url).netloc == "console.aws.amazon.com"
        path, _, query = urlsplit(url).fragment.partition("?")
        assert path == "/stacks/create/review"
        values = {key: one for key, (one,) in parse_qs(query).items()}
        assert len(values["templateURL"]) <= links.TEMPLATE_URL_MAX
        found.append(values)
    return found


def own_file(document: dict[str, Any]) -> RecipeFile:
    """A recipe of one's own, as a file."""
    path = Path(mkdtemp()) / "own.yaml"
    path.write_text(json.dumps({"version": 1, "name": "own"} | document))
    return load(path)


def own_rendered(document: dict[str, Any], *settings: str) -> Rendering:
    """It, rendered."""
    file = own_file(document)
    try:
        return deploy.render(file, "console", [*SETTINGS, *settings])
    finally:
        file.path.unlink()
        file.path.parent.rmdir()


def own(document: dict[str, Any], *settings: str) -> dict[str, dict[str, Any]]:
    """Templates of a recipe of one's own."""
    found = own_rendered(document, *settings).documents
    return {one.file.rpartition("/")[2]: dict(one.body) for one in found if not isinstance(one.body, str)}


def from_s3() -> dict[str, dict[str, Any]]:
    """Templates of a recipe on EKS whose model is in S3; no shipped one is."""
    node = {"instance_type": "ml.p5.48xlarge"}
    return own({"model": {"s3": "s3://models-example/llama/v3/"}, "prefill": node, "decode": node}, "namespace=team")


def statements(value: Any) -> Iterator[dict[str, Any]]:
    """What is allowed, anywhere in a value."""
    if isinstance(value, dict):
        if value.get("Effect") == "Allow" and "Resource" in value:
            yield value
        for inner in value.values():
            yield from statements(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from statements(inner)


class Stack:
    """A template with parameters: conditions decided, functions worked out."""

    def __init__(self, template: Mapping[str, Any], given: Mapping[str, str]) -> None:
        self.template = template
        declared = template.get("Parameters", {})
        self.values = {name: given.get(name, one.get("Default")) for name, one in declared.items()}

    def resources(self) -> dict[str, dict[str, Any]]:
        """Logical name → {Type, Properties} of what is made."""
        return {
            name: {"Type": one["Type"], "Properties": self.value(one.get("Properties", {}))}
            for name, one in self.template["Resources"].items()
            if "Condition" not in one or self.holds(one["Condition"])
        }

    def holds(self, condition: str) -> bool:
        """Whether a condition does."""
        return bool(self.value(self.template["Conditions"][condition]))

    def value(self, given: Any) -> Any:
        """A value without functions."""
        if isinstance(given, list):
            return [item for item in map(self.value, given) if item is not _NOTHING]
        if not isinstance(given, dict):
            return given
        if len(given) == 1:
            ((name, inner),) = given.items()
            if name.startswith("Fn::") or (name in ("Ref", "Condition") and isinstance(inner, str)):
                return self._function(name, inner)
        found = {key: self.value(inner) for key, inner in given.items()}
        return {key: inner for key, inner in found.items() if inner is not _NOTHING}

    def _function(self, name: str, inner: Any) -> Any:
        match name:
            case "Ref":
                return self._name(inner)
            case "Condition":
                return self.holds(inner)
            case "Fn::If":
                return self.value(inner[1] if self.holds(inner[0]) else inner[2])
            case "Fn::GetAtt":
                return _ATTRIBUTES.get(".".join(inner)) or _ATTRIBUTES.get(inner[1], f"{inner[0]}-{inner[1]}")
            case "Fn::Sub":
                text, local = (inner, {}) if isinstance(inner, str) else (inner[0], self.value(inner[1]))
                return self._substituted(text, local)
        values = self.value(inner)
        match name:
            case "Fn::Equals":
                return values[0] == values[1]
            case "Fn::Not":
                return not values[0]
            case "Fn::Or":
                return any(values)
            case "Fn::And":
                return all(values)
            case "Fn::Select":
                return values[1][int(values[0])]
            case "Fn::Split":
                return values[1].split(values[0])
        raise NotImplementedError(name)

    def _name(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NOTHING
        if name in _PSEUDO:
            return _PSEUDO[name]
        if name in self.values:
            assert self.values[name] is not None, f"{name} has no value"
            return self.values[name]
        assert name in self.template["Resources"], f"nothing is called {name}"
        return _ATTRIBUTES.get(name, f"made-{name}")

    def _substituted(self, text: str, local: Mapping[str, str]) -> str:
        first, *rest = text.split("${")
        for part in rest:
            name, _, after = part.partition("}")
            if name.startswith("!"):
                first += f"${{{name[1:]}}}{after}"
                continue
            made = local.get(name) or (
                self._function("Fn::GetAtt", name.split(".")) if "." in name else str(self._name(name))
            )
            first += made + after
        return first


_NOTHING = object()
