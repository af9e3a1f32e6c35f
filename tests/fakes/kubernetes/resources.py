"""place(path) → the resource, object and subresource that a path names, of the kinds that the server serves."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from tests.fakes.kubernetes.refusal import missing


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as a server serves it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def qualified(self) -> str:
        """As messages name it: deployments.apps, pods."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """As messages of invalid objects name it: Deployment.apps, Pod."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


# Written out: plurals do not follow from kinds. First those that hyp is shown (tests/hyp).
RESOURCES = (
    Resource("v1", "Namespace", "namespaces", namespaced=False),
    Resource("v1", "Node", "nodes", namespaced=False),
    Resource("v1", "ConfigMap", "configmaps"),
    Resource("v1", "Pod", "pods"),
    Resource("v1", "Secret", "secrets"),
    Resource("v1", "Service", "services"),
    Resource("v1", "ServiceAccount", "serviceaccounts"),
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("batch/v1", "Job", "jobs"),
    Resource("inference.sagemaker.aws.amazon.com/v1", "InferenceEndpointConfig", "inferenceendpointconfigs"),
    Resource("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
    Resource("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets"),
    Resource("monitoring.coreos.com/v1", "PodMonitor", "podmonitors"),
    Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
)
SERVED = (
    *RESOURCES,
    Resource("v1", "Event", "events"),
    Resource("v1", "LimitRange", "limitranges"),
    Resource("v1", "PersistentVolume", "persistentvolumes", namespaced=False),
    Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Resource("v1", "ResourceQuota", "resourcequotas"),
    Resource("apps/v1", "DaemonSet", "daemonsets"),
    Resource("apps/v1", "StatefulSet", "statefulsets"),
    Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Resource("batch/v1", "CronJob", "cronjobs"),
    Resource("coordination.k8s.io/v1", "Lease", "leases"),
    Resource("gateway.networking.k8s.io/v1", "Gateway", "gateways"),
    Resource("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
    Resource("inference.networking.k8s.io/v1", "InferencePool", "inferencepools"),
    Resource("kueue.x-k8s.io/v1beta1", "LocalQueue", "localqueues"),
    Resource("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False),
    Resource("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    Resource("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
)
SUBRESOURCES = {
    "scale": ("Deployment", "StatefulSet", "LeaderWorkerSet", "InferenceEndpointConfig"),
    "status": tuple(
        each.kind
        for each in SERVED
        if each.kind not in ("ConfigMap", "Secret", "ServiceAccount", "Event", "LimitRange", "Lease", "PodMonitor")
        and not each.group.startswith("rbac.")
    ),
    "log": ("Pod",),
    "eviction": ("Pod",),
    "proxy": ("Pod", "Service"),
}
_CORE = r"/api/(?P<core>v1)"
_GROUP = r"/apis/(?P<group>[a-z0-9-]+(?:\.[a-z0-9-]+)*/v[a-z0-9]+)"
_PATH = re.compile(
    rf"(?:{_CORE}|{_GROUP})(?:/namespaces/(?P<namespace>[a-z0-9-]+)(?=/))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[a-z0-9.:-]+)(?:/(?P<sub>scale|status|log|eviction|proxy)(?P<rest>(?<=proxy)/.*)?)?)?"
)


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names. rest: what follows …/proxy."""

    resource: Resource
    namespace: str
    name: str
    subresource: str = ""
    rest: str = ""

    @property
    def object(self) -> Place:
        """The object that a subresource belongs to."""
        return replace(self, subresource="", rest="")

    def __str__(self) -> str:
        return f'{self.resource.qualified} "{self.name}"'


def place(path: str) -> Place:
    """What a path names. Raises Refused for one that no server has."""
    found = _PATH.fullmatch(urlsplit(path).path)
    if found:
        api_version = found["core"] or found["group"]
        for resource in SERVED:
            if (resource.api_version, resource.plural) == (api_version, found["plural"]):
                sub = found["sub"] or ""
                if sub and resource.kind not in SUBRESOURCES[sub]:
                    break
                return Place(resource, found["namespace"] or "", found["name"] or "", sub, found["rest"] or "")
    raise missing()


def resource_of(api_version: str, kind: str) -> Resource:
    """The resource of an object. Raises KeyError with both where it is not served."""
    for each in SERVED:
        if (each.api_version, each.kind) == (api_version, kind):
            return each
    raise KeyError(f"{kind} in {api_version}")


NAMESPACE = RESOURCES[0]
QUOTA = resource_of("v1", "ResourceQuota")
