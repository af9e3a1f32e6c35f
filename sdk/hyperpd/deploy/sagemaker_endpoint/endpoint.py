"""What is rendered: an endpoint's names, image, container environment and files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from hyperpd import instances
from hyperpd.deploy.sagemaker_endpoint.options import Options
from hyperpd.deploy.target import endpoint_name
from hyperpd.instances import InstanceType
from hyperpd.recipe import Recipe, RecipeFile, load, shipped

Object = dict[str, Any]

MODEL_FOLDER = "/opt/ml/model"  # where SageMaker puts a model's files
RECIPE_FILE = "recipe.yaml"
ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>[a-z0-9._/-]+)"
    r"(:[\w.-]+)?(@sha256:[0-9a-f]{64})?"
)
_DIGITS = 12  # of a digest in a name
_NAME_LENGTH = 63


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A recipe with the options of its rendering."""

    file: RecipeFile
    options: Options

    @property
    def recipe(self) -> Recipe:
        return self.file.recipe

    @property
    def name(self) -> str:
        return self.options.endpoint_name or endpoint_name(self.recipe)

    def named(self, request: Object) -> str:
        """A name for what never changes: another request, or another recipe, has another name."""
        said = hashlib.sha256(f"{self.file.digest}{json.dumps(request, sort_keys=True)}".encode()).hexdigest()
        return f"{self.name[: _NAME_LENGTH - _DIGITS - 1].rstrip('-')}-{said[:_DIGITS]}"

    @property
    def image(self) -> str:
        return str(self.options.image or self.recipe.image)

    @property
    def registry(self) -> dict[str, str]:
        """account, region and repository of the image."""
        found = ECR.fullmatch(self.image)
        return found.groupdict() if found else {}

    @property
    def instance_type(self) -> str:
        return instance_type(self.recipe, self.options) or ""

    @property
    def machine(self) -> InstanceType | None:
        """What is known of the instance."""
        return known(self.instance_type)

    @property
    def bucket_and_prefix(self) -> tuple[str, str] | None:
        """Where SageMaker copies /opt/ml/model from; the prefix ends with a slash."""
        if not (given := model_data(self.recipe, self.options)):
            return None
        bucket, _, prefix = given.removeprefix("s3://").partition("/")
        return bucket, prefix.rstrip("/") + "/"

    @property
    def carries_recipe(self) -> bool:
        """Whether the recipe travels with the model's files."""
        return not is_shipped(self.recipe)

    @property
    def recipe_key(self) -> str:
        """Name of the recipe beside the model's files: a changed recipe has another."""
        return f"hyperpd-recipe-{self.file.digest[:_DIGITS]}.yaml"

    def environment(self) -> dict[str, str]:
        """The container's. api-address: requests come from outside the container, workers talk within it."""
        recipe = f"{MODEL_FOLDER}/{self.recipe_key}" if self.carries_recipe else self.recipe.name
        said = {"HYPERPD_ROLE": "node", "HYPERPD_RECIPE": recipe, "HYPERPD_API_ADDRESS": "0.0.0.0"}
        if self.bucket_and_prefix and not self.recipe.model.generated:
            said |= {"HYPERPD_MODEL": MODEL_FOLDER, "HYPERPD_SERVED_AS": self.recipe.model.name}
        return said

    @property
    def isolated(self) -> bool:
        """Whether the container needs no network: nothing comes from the hub."""
        return not from_hub(self.recipe, self.options)


def instance_type(recipe: Recipe, options: Options) -> str | None:
    return options.instance_type or next((s.instance_type for s in recipe.roles().values() if s.instance_type), None)


def known(name: str) -> InstanceType | None:
    """What is known of an instance type."""
    return next((one for one in instances.INSTANCES if one.name == name), None)


def model_data(recipe: Recipe, options: Options) -> str | None:
    return options.model_data or recipe.model.s3


def from_hub(recipe: Recipe, options: Options) -> bool:
    adapters = any(adapter.huggingface for adapter in recipe.model.adapters)
    return adapters or bool(recipe.model.huggingface and not model_data(recipe, options))


@cache
def _shipped(name: str) -> Recipe | None:
    return load(name).recipe if name in shipped() else None


def is_shipped(recipe: Recipe) -> bool:
    """Whether the image has this recipe: unchanged, by its name."""
    return _shipped(recipe.name) == recipe
