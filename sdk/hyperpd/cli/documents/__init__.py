"""What commands print for programs by --json, as types; `hyperpd schema COMMAND` prints them as JSON Schema.

A key that is here stays, and keeps its meaning and its unit; keys may be added. Every document that a test makes a
command print is held to its type.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from hyperpd.cli.documents import account, cluster, deployment, machine, recipe, replay, routing
from hyperpd.cluster import patch, state

_ANSWER = Field(description="The answer of OpenAI's API, as the gateway or the endpoint gave it.")

# By the command's words.
DOCUMENTS: dict[str, Any] = {
    "up": machine.Up,
    "status": dict[str, machine.FleetState] | list[deployment.Deployment],
    "down": machine.Down,
    "invoke": Annotated[dict[str, Any], _ANSWER],
    "explain": routing.Explained,
    "calibrate": routing.Calibrated | routing.CalibrationPlanned,
    "plan": recipe.Plan,
    "recipes": list[recipe.Recipe],
    "recipes show": recipe.Recipe,
    "recipes check": list[recipe.Checked],
    "recipes diff": recipe.Diff,
    "render": recipe.Rendering,
    "targets": dict[str, recipe.Target],
    "replay": replay.Replayed,
    "doctor": machine.Checks | machine.Peer,
    "image build": machine.ImageBuilt,
    "image push": machine.ImagePushed,
    "image mirror": machine.Mirrored,
    "hub publish": account.Published,
    "hub serve-local": account.ServedHub,
    "deploy": deployment.Deployed | deployment.Tried | deployment.Compared,
    "scale": deployment.Scaled | deployment.ScalePlanned,
    "logs": deployment.Line,
    "undeploy": deployment.Removed,
    "iam": account.Policy | account.Commands,
    "review": account.Review,
    "cluster plan": cluster.ClusterPlan,
    "cluster create": cluster.Created | cluster.DryRun,
    "cluster status": cluster.Cluster,
    "cluster watch": cluster.Cluster,
    "cluster update": cluster.Updated | cluster.DryRun,
    "cluster scale": cluster.Scaled | cluster.DryRun,
    "cluster events": list[state.Event],
    "cluster nodes": list[cluster.Node],
    "cluster repair": cluster.Repaired,
    "cluster patch": list[patch.Patched],
    "cluster delete": cluster.Deleted,
    "cluster import": cluster.Imported,
}


def json_schema(command: str) -> dict[str, Any]:
    """The JSON Schema of what `command` prints by --json, as in "cluster status". Raises KeyError for a command
    without a document."""
    found = TypeAdapter(DOCUMENTS[command]).json_schema(mode="serialization")
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": f"hyperpd {command} --json"}
