"""A HyperPod cluster: planned from its file, created, watched, changed, patched and deleted."""

from hyperpd.cluster.file import dump, load
from hyperpd.cluster.spec import ClusterSpec, InstanceGroup

__all__ = ["ClusterSpec", "InstanceGroup", "dump", "load"]
