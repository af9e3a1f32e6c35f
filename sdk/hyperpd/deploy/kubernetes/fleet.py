"""What is rendered, and how its objects are called and labelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hyperpd import instances, models
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX, Options
from hyperpd.engine import hub_names
from hyperpd.instances import InstanceType
from hyperpd.placement import Machine, Placement, Ports, place
from hyperpd.recipe import Recipe, RecipeFile, Role

Component = Literal["prefill", "decode", "aggregated", "gateway", "node"]
Room = Literal["engines", "gateway"]
Object = dict[str, Any]

NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
DIGEST = "hyperpd.io/recipe-digest"
RECIPE_FOLDER, RECIPE_KEY = "/etc/hyperpd", "recipe.yaml"
PORTS = Ports()
GATED = "Hugging Face hands it out with a token alone"


@dataclass(frozen=True, slots=True)
class Fleet:
    """A recipe with the options of its rendering."""

    file: RecipeFile
    options: Options

    @property
    def recipe(self) -> Recipe:
        return self.file.recipe

    @property
    def local(self) -> bool:
        """Whether everything runs in one pod: CUDA IPC does not leave a container."""
        return self.recipe.fabric == "local" and not self.recipe.aggregated

    @property
    def rooms(self) -> tuple[Room, ...]:
        return ("engines",) if self.local else ("engines", "gateway")

    def namespace(self, room: Room) -> str:
        return self.options.namespace + (ENGINES_SUFFIX if room == "engines" else "")

    @property
    def image(self) -> str:
        return str(self.options.image or self.recipe.image)

    @property
    def configuration(self) -> str:
        """Name of the ConfigMaps with the recipe: a changed recipe has another one."""
        return f"recipe-{self.file.digest[:12]}"

    def workload(self, role: Role) -> str:
        """Name of the object that makes a role's pods. A LeaderWorkerSet comes with a Service of its own name."""
        return f"{role}-groups" if self.recipe.role(role).parallel.nodes > 1 else role

    def machine(self, role: Role) -> InstanceType | None:
        """What is known of the role's machines."""
        name = self.recipe.role(role).instance_type
        return instances.find(name) if name and self.recipe.accelerator == "gpu" else None

    def efa(self, role: Role) -> bool:
        """Whether workers of `role` talk over EFA: to the other role, or among their own machines."""
        machine, wanted = self.machine(role), self.recipe.fabric == "efa" and self.recipe.on_fabric(role)
        return wanted and machine is not None and machine.efa > 0

    @property
    def from_hub(self) -> bool:
        """Whether engines read anything from Hugging Face."""
        return bool(self.recipe.model.huggingface or hub_names(self.recipe))

    @property
    def gated(self) -> bool:
        """Whether Hugging Face is known to ask for a token before it hands the model out."""
        known = models.find(self.recipe.model.huggingface)
        return bool(known and known.gated)

    def on_one_machine(self) -> Placement:
        """All workers on one machine. Raises CapacityError when they do not fit."""
        machine = self.machine(next(iter(self.recipe.roles())))
        return place(self.recipe, (Machine(gpus=machine.gpus if machine else None),))

    def meta(
        self, name: str, room: Room, component: Component | None = None, annotations: Mapping[str, str] | None = None
    ) -> Object:
        """An object's metadata."""
        return {
            "name": name,
            "namespace": self.namespace(room),
            "labels": self.labels(component),
            **({"annotations": dict(annotations)} if annotations else {}),
        }

    def configmap(self, namespace: str) -> Object:
        """The recipe as it was written, byte for byte. It never changes: another recipe has another name."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.configuration,
                "namespace": namespace,
                "labels": self.labels(),
                "annotations": {DIGEST: self.file.digest},
            },
            "immutable": True,
            "data": {RECIPE_KEY: self.file.path.read_bytes().decode()},
        }

    def labels(self, component: Component | None = None) -> dict[str, str]:
        return {
            NAME: "hyperpd",
            "app.kubernetes.io/instance": self.recipe.name,
            **({COMPONENT: component} if component else {}),
            "app.kubernetes.io/managed-by": "hyperpd",
        }


def selector(component: Component | None = None) -> dict[str, str]:
    """The labels that find pods in their namespace. Without the recipe's name: it may change, a selector may not."""
    return {NAME: "hyperpd", **({COMPONENT: component} if component else {})}
