"""The target sagemaker_endpoint: a real-time endpoint of one instance, with all roles in one container.

JSON requests of CreateModel, CreateEndpointConfig and CreateEndpoint, which boto3 and the AWS CLI
(--cli-input-json) take as they are, a file that sends them with boto3, and one that says the same with the
SageMaker Python SDK's resources, without its ModelBuilder.
"""

from __future__ import annotations

from hyperpd.deploy.sagemaker_endpoint import permissions, refusals, requests, scripts
from hyperpd.deploy.sagemaker_endpoint.endpoint import RECIPE_FILE, Endpoint
from hyperpd.deploy.sagemaker_endpoint.fields import FIELDS
from hyperpd.deploy.sagemaker_endpoint.options import Options
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile

__all__ = ["FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "sagemaker_endpoint"
SUMMARY = "SageMaker real-time endpoint: one instance, all roles in one container (boto3, SageMaker SDK)"


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; every problem at once."""
    return list(refusals.problems(recipe, options))


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What SageMaker takes away of what the recipe says."""
    return list(refusals.losses(recipe, options))


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """The role's documents, the requests in the order in which they are sent, and the files that send them."""
    endpoint = Endpoint(file, options)
    model, config, create = requests.model(endpoint), requests.config(endpoint), requests.endpoint(endpoint)
    found = [
        Document("1-role-trust.json", "Who may take on the execution role.", permissions.trust(endpoint)),
        Document("1-role-policy.json", "What the execution role may do.", permissions.policy(endpoint)),
        Document("2-model.json", "CreateModel", model),
        Document("3-endpoint-config.json", "CreateEndpointConfig", config),
        Document("4-endpoint.json", "CreateEndpoint", create),
    ]
    if endpoint.carries_recipe:
        text = file.path.read_bytes().decode()
        found.append(Document(RECIPE_FILE, "The recipe, byte for byte; it goes beside the model's files.", text))
    lost = [*refusals.not_expressed(file.recipe), *refusals.losses(file.recipe, options)]
    found.append(Document("deploy.py", "Sends the requests with boto3.", scripts.boto3(endpoint, lost)))
    found.append(
        Document("deploy_sdk.py", "The same with the SageMaker SDK.", scripts.sdk(endpoint, model, config, create))
    )
    return found
