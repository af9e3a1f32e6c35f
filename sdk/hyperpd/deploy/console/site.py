"""What is rendered: a recipe with its options, and the nodes it takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hyperpd import capacity
from hyperpd.capacity import Capacity
from hyperpd.deploy.console.options import Options
from hyperpd.deploy.sagemaker_endpoint.endpoint import ECR
from hyperpd.recipe import Recipe, RecipeFile

Object = dict[str, Any]
LIFECYCLE, RECIPE = "lifecycle", "recipe"  # folders of the prefix
UNSEEN = "[unverified]"  # of what a screen shows


@dataclass(frozen=True)
class Site:
    """A recipe with the options of its rendering."""

    file: RecipeFile
    options: Options

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe; roles without an instance type have that of the options."""
        recipe, given = self.file.recipe, self.options.instance_type
        update: Object = {
            role: spec.model_copy(update={"instance_type": given})
            for role, spec in recipe.roles().items()
            if given and not spec.instance_type
        }
        return recipe.model_copy(update=update)

    @cached_property
    def capacity(self) -> Capacity:
        """Raises CapacityError."""
        return capacity.check(self.recipe)

    @property
    def eks(self) -> bool:
        return self.options.orchestrator == "eks"

    @property
    def local(self) -> bool:
        """Whether all workers share one node by the recipe's word."""
        return self.recipe.fabric == "local" and not self.recipe.aggregated

    @property
    def one_instance(self) -> bool:
        """Whether one instance holds all workers. Whether it can be an endpoint hosted.problems says."""
        return self.capacity.nodes == 1 and not (self.recipe.model.path or self.recipe.model.claim)

    @property
    def image(self) -> str:
        return str(self.options.image or self.recipe.image)

    @property
    def registry(self) -> dict[str, str]:
        """account, region and repository of the image; empty: it is not in ECR."""
        found = ECR.fullmatch(self.image)
        return found.groupdict() if found else {}

    @property
    def account(self) -> str:
        """Of the stacks: an image of another account has to be said."""
        return self.options.account or self.registry["account"]

    @property
    def partition(self) -> str:
        region = str(self.options.region)
        return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"

    @property
    def digest(self) -> str:
        return self.file.digest

    def stack(self, part: str = "") -> str:
        """A stack's name; without `part` the cluster's."""
        return self.options.stack_name + (f"-{part}" if part else "")

    def key(self, name: str) -> str:
        """Where in the bucket `name` is uploaded to."""
        return f"{self.options.prefix}/{name}"

    @property
    def tags(self) -> list[Object]:
        return [
            {"Key": "hyperpd:recipe", "Value": self.recipe.name},
            {"Key": "hyperpd:recipe-digest", "Value": self.digest},
        ]


def sub(text: str) -> Object:
    """Fn::Sub."""
    return {"Fn::Sub": text}


def literal(text: str) -> str:
    """A recipe's word within Fn::Sub."""
    return text.replace("${", "${!")


def ref(name: str) -> Object:
    """Ref."""
    return {"Ref": name}


def chosen(condition: str, then: Any, otherwise: Any) -> Object:
    """Fn::If."""
    return {"Fn::If": [condition, then, otherwise]}


def parameter(meaning: str, default: str | None = None, **more: Any) -> Object:
    """A stack's parameter; without a default its page asks for it."""
    return {
        "Type": "String",
        "Description": meaning,
        **({"Default": default} if default is not None else {}),
        **more,
    }
