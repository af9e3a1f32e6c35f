"""What is rendered: which of the three forms, how it is called, and what all of them have."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hyperpd.deploy.inference_operator.options import ENDPOINT_SUFFIX, Options
from hyperpd.deploy.kubernetes.fleet import DIGEST, PORTS, RECIPE_KEY, Fleet, Object
from hyperpd.deploy.kubernetes.options import Options as KubernetesOptions
from hyperpd.deploy.target import Document, endpoint_name, question
from hyperpd.recipe import Recipe, RecipeFile

Form = Literal["front", "pair", "aggregated"]

# vLLM, LMCache and NIXL, as AWS's page on DPD names it (read 2026-11); it carries vLLM 0.19.0 there.
AWS_IMAGE = "public.ecr.aws/deep-learning-containers/vllm:server-hyperpod-cuda-v1.1"
VOLUME, MODEL_FOLDER = "model-weights", "/opt/ml/model"  # where the operator puts a model's files
VLLM_PORT = 8000
IMAGE_NOTE = (
    "AWS's page names vLLM 0.19.0, LMCache and NIXL in it; an option of a newer vLLM in *.engine is refused at start."
)
IMAGE_PULL_S = 1800  # of some 10 GB, on a machine that is new
UNVERIFIED = (
    "Unverified: no live operator has taken this. It is held to the operator's schema (v1, chart 2.2.2, operator 3.2)"
    " and to the rules that AWS documents."
)


@dataclass(frozen=True, slots=True)
class Written:
    """A spec, notes on its keys ("spec.worker.image" → note), and what is said above it."""

    spec: Object
    notes: dict[str, str]
    comment: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A recipe with the options of its rendering."""

    file: RecipeFile
    options: Options

    @property
    def recipe(self) -> Recipe:
        return self.file.recipe

    @property
    def form(self) -> Form:
        return "front" if self.options.front else "aggregated" if self.recipe.aggregated else "pair"

    @property
    def ours(self) -> bool:
        """Whether containers run hyperpd's image."""
        return self.options.front or self.options.own_image

    @property
    def image(self) -> str:
        ours = self.options.image or self.recipe.image
        return str(ours) if self.ours else self.options.image or AWS_IMAGE

    @property
    def name(self) -> str:
        return self.options.name or endpoint_name(self.recipe)

    @property
    def namespace(self) -> str:
        return self.options.namespace + ENDPOINT_SUFFIX

    @property
    def fleet(self) -> Fleet:
        """The same recipe as the target kubernetes renders it: its names, and its shares of machines."""
        return Fleet(self.file, KubernetesOptions(namespace=self.options.namespace))

    def meta(self, name: str) -> Object:
        """Metadata of an object beside the endpoint."""
        return {"name": name, "namespace": self.namespace, "labels": self.fleet.labels()}

    def surroundings(self) -> Iterator[Document]:
        """The namespace, and the recipe where a container reads it."""
        space = {"name": self.namespace, "labels": self.fleet.labels()}
        why = "Of this endpoint alone. No pod security level: the operator's own containers decide what they need."
        yield Document("1-namespace.yaml", why, {"apiVersion": "v1", "kind": "Namespace", "metadata": space})
        if self.ours:
            yield self._recipe()

    def body(self, spec: Object) -> Object:
        """The InferenceEndpointConfig with `spec`."""
        annotations = {DIGEST: self.file.digest}
        if self.recipe.description:
            annotations["hyperpd.io/description"] = self.recipe.description
        return {
            "apiVersion": "inference.sagemaker.aws.amazon.com/v1",
            "kind": "InferenceEndpointConfig",
            "metadata": self.meta(self.name) | {"annotations": annotations},
            "spec": spec,
        }

    def head(self) -> Object:
        """The first fields of every spec."""
        names = {"modelName": self.name}
        return names | ({"endpointName": self.name} if self.options.sagemaker_endpoint else {})

    def asking(self) -> list[str]:
        """How a SageMaker endpoint is asked, in lines; what the operator calls its load balancer is not published."""
        if not self.options.sagemaker_endpoint:
            return []
        return [
            "When it is in service:",
            f"aws sagemaker-runtime invoke-endpoint --endpoint-name {self.name} /dev/stdout \\",
            "--content-type application/json --cli-binary-format raw-in-base64-out --body \\",
            shlex.quote(question(self.recipe)),
        ]

    def recipe_volume(self) -> tuple[Object, Object]:
        """The recipe in the place of a model: (fields of the spec, modelVolumeMount).

        A worker mounts one volume, and hyperpd's containers have to read the recipe.
        """
        volume = {"name": VOLUME, "configMap": {"name": self.fleet.configuration}}
        source = {"modelSourceConfig": {"modelSourceType": "kubernetesVolume"}, "kubernetes": {"volumes": [volume]}}
        return source, {"name": VOLUME, "mountPath": MODEL_FOLDER}

    def identity(self, address: Object) -> list[Object]:
        """Variables of every container of hyperpd's image; scalars, which nothing on the way can tear apart.

        address: the variable that says where it listens.
        """
        return [
            {"name": "HYPERPD_RECIPE", "value": f"{MODEL_FOLDER}/{RECIPE_KEY}"},
            {"name": "HYPERPD_STATE_DIR", "value": "/tmp/hyperpd"},
            address,
        ]

    def _recipe(self) -> Document:
        body = self.fleet.configmap(self.namespace)
        return Document("2-recipe.yaml", "Byte for byte; another recipe has another name.", body)


# The API alone is open: metrics, status and engine ask for no key, and no labels are published for a policy.
API_EVERYWHERE = {"name": "HYPERPD_API_ADDRESS", "value": "0.0.0.0"}
ALIVE = "/v1/models"  # answers without workers, too
METRICS_NOTE = "hyperpd's metrics listen on the pod's 127.0.0.1: a collector in the pod may read them, no other."
METRICS_LOST = (
    f"metrics: port {PORTS.gateway_admin} names every worker and asks for no key, so it listens on the pod's 127.0.0.1;"
    " unverified that the operator's collector reads it there"
)


def probe(path: str, port: int, period_s: int, tries: int) -> Object:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": tries,
    }


def metrics(port: int) -> Object:
    return {"enabled": True, "modelMetrics": {"path": "/metrics", "port": port}}


GATEWAY_PORT, GATEWAY_ADMIN_PORT, WORKER_PORT = PORTS.gateway_api, PORTS.gateway_admin, PORTS.worker_api
