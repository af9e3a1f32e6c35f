"""Cluster files of the tests: small ones, and two that use every field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hyperpd.cluster import file
from hyperpd.cluster.blueprint import Blueprint, blueprint
from hyperpd.cluster.names import Place
from hyperpd.cluster.spec import ClusterSpec

ACCOUNT, REGION = "123456789012", "us-east-1"
PLACE = Place(ACCOUNT, REGION)
ROLE = f"arn:aws:iam::{ACCOUNT}:role/nodes"
NETWORK = {"subnets": ["subnet-0123456789abcdef0"], "security_groups": ["sg-0123456789abcdef0"]}
PLAN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-plan/p5-for-may"
FS = f"fs-0123456789abcdef0.fsx.{REGION}.amazonaws.com"

EKS: dict[str, Any] = {
    "version": 1,
    "name": "pd",
    "orchestrator": {"eks": "prod"},
    "network": NETWORK,
    "groups": {
        "prefill": {"instance_type": "ml.p5.48xlarge", "count": 2},
        "decode": {"instance_type": "ml.p5.48xlarge", "count": 1},
    },
}
SLURM: dict[str, Any] = {
    "version": 1,
    "name": "pd",
    "orchestrator": {"slurm": {}},
    "groups": {
        "controller": {"instance_type": "ml.c5.2xlarge", "count": 1, "slurm": {"node": "controller"}},
        "prefill": {"instance_type": "ml.p5.48xlarge", "count": 2, "slurm": {"node": "compute"}},
    },
}
EKS_FULL: dict[str, Any] = {
    **EKS,
    "region": REGION,
    "role": ROLE,
    "bucket": "sagemaker-our-files",
    "lifecycle": {"source": "hyperpd", "on_create": "on_create.sh"},
    "node_recovery": "none",
    "continuous": True,
    "tiered_storage": {"memory_percent": 20},
    "autoscaling": {"role": f"arn:aws:iam::{ACCOUNT}:role/scaler"},
    "tags": {"team": "serving", "cost centre": "4+2"},
    "groups": {
        "prefill": {
            "instance_types": ["ml.p5.48xlarge", "ml.p5en.48xlarge"],
            "count": 4,
            "min_count": 2,
            "role": f"arn:aws:iam::{ACCOUNT}:role/path/prefill",
            "lifecycle": {"source": "s3://sagemaker-our-files/own/", "on_create": "set_up.sh"},
            "threads_per_core": 1,
            "interface": "efa-only",
            "training_plan": PLAN,
            "network": {"subnets": ["subnet-0fedcba9876543210"]},
            "volumes": [{"size_gb": 500, "kms_key": "alias/nodes"}, {"root": True, "kms_key": "alias/nodes"}],
            "lustre": [{"dns": FS, "mount_name": "abcdefgh", "mount_path": "/fsx"}],
            "openzfs": [{"dns": FS, "mount_path": "/home"}],
            "health_checks": ["instance_stress", "instance_connectivity", "multi_node_training_validation"],
            "labels": {"example.com/kind": "a", "hyperpd.io/role": "prefill"},
            "taints": [{"key": "nvidia.com/gpu", "value": "yes", "effect": "NoSchedule"}],
            "image": "default",
            "image_release": "1.2.3",
        },
        "decode": {
            "instance_type": "ml.g6e.48xlarge",
            "count": 1,
            "capacity": "spot",
            "interface": "efa",
            "network": {"subnets": ["subnet-0fedcba9876543210"], "security_groups": ["sg-0fedcba9876543210"]},
            "lifecycle": {"source": "none"},
            "image": "ami-0123456789abcdef0",
        },
    },
}
SLURM_FULL: dict[str, Any] = {
    **SLURM,
    "continuous": True,
    "network": NETWORK,
    "orchestrator": {
        "slurm": {
            "strategy": "managed",
            "accounting": {
                "endpoint": "db.example.com",
                "port": 3306,
                "database": "slurm_acct_db",
                "secret": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:slurm-AbCdEf",
            },
        }
    },
    "groups": {
        **SLURM["groups"],
        "login": {"instance_type": "ml.c5.2xlarge", "count": 2, "slurm": {"node": "login"}},
        "decode": {
            "instance_type": "ml.p5.48xlarge",
            "count": 1,
            "capacity": "on_demand",
            "slurm": {"node": "compute", "partition": "decode"},
        },
    },
}


def merged(document: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`document` with `change` put over it, mapping by mapping; None takes a key away."""
    found = dict(document)
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = merged(found[key], value)
        else:
            found[key] = value
    return found


def spec(document: dict[str, Any], **change: Any) -> ClusterSpec:
    """The spec of a document with changes, checked whole."""
    found = file.parse(merged(document, change), "cluster.yaml")
    file.check(found, "cluster.yaml")
    return found


def plan(document: dict[str, Any], **change: Any) -> Blueprint:
    """The blueprint of a document with changes."""
    return blueprint(spec(document, **change), PLACE)


def written(folder: Path, document: dict[str, Any], **change: Any) -> Path:
    """A cluster file on disk."""
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(merged(document, change), sort_keys=False))
    return path
