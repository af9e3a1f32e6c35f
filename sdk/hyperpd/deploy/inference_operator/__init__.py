"""The target inference_operator: HyperPod's own operator, by an InferenceEndpointConfig.

Three forms: pdSpec for a recipe with prefill and decode, one worker for an aggregated recipe, and (option front)
hyperpd's gateway alone, as a SageMaker endpoint before engines of the target kubernetes.
"""

from __future__ import annotations

from pathlib import Path

from hyperpd.deploy.inference_operator import aggregated, fields, front, pair, refusals, rules
from hyperpd.deploy.inference_operator.endpoint import UNVERIFIED, Endpoint
from hyperpd.deploy.inference_operator.fields import FIELDS
from hyperpd.deploy.inference_operator.options import Options
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile

__all__ = ["FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "inference_operator"
SUMMARY = "HyperPod's inference operator: its own prefill/decode, or hyperpd's gateway as a SageMaker endpoint"
_FORMS = {"front": front.write, "pair": pair.write, "aggregated": aggregated.write}


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; where nothing is, what the operator would refuse."""
    endpoint = Endpoint(RecipeFile(recipe, Path(), ""), options)
    if found := list(refusals.problems(endpoint)):
        return found
    return rules.problems(endpoint.body(_FORMS[endpoint.form](endpoint).spec))


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What this recipe says and the chosen form does not."""
    return list(fields.losses(Endpoint(RecipeFile(recipe, Path(), ""), options)))


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """The objects, in the order in which they are applied, which is that of the files' names, too."""
    endpoint = Endpoint(file, options)
    made = _FORMS[endpoint.form](endpoint)
    comment = "\n".join([made.comment, UNVERIFIED, *endpoint.asking()])
    return [
        *endpoint.surroundings(),
        *([front.way_in(endpoint)] if endpoint.form == "front" else []),
        Document("4-endpoint.yaml", comment, endpoint.body(made.spec), made.notes),
    ]
