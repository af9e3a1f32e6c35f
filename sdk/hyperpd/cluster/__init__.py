"""A HyperPod cluster: planned from its file, created, watched, changed, patched and deleted."""

from hyperpd.cluster.file import dump, load
from hyperpd.cluster.hyperpod import Cluster, Plan
from hyperpd.cluster.spec import ClusterSpec, InstanceGroup

__all__ = ["Cluster", "ClusterSpec", "InstanceGroup", "Plan", "dump", "load"]
