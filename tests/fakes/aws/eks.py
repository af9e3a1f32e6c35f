"""EKS add-ons, access entries and pod identity associations, a stand-in beside moto, which has the clusters alone.

`clusters` changes what DescribeCluster says: eks.clusters["pd"] = {"version": "1.27", "status": "UPDATING"}.
"""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.gate import ACCOUNT, REGION, Refused

Body = dict[str, Any]
CREATED_S = 1_790_000_000.0


class Eks:
    """What a test says there is, by EKS cluster; calls add to it."""

    def __init__(self) -> None:
        self.clusters: dict[str, Body] = {}  # fields that differ from what moto says
        self.addons: dict[tuple[str, str], Body] = {}
        self.entries: dict[tuple[str, str], Body] = {}
        self.policies: dict[tuple[str, str], list[Body]] = {}
        self.associations: dict[tuple[str, str], Body] = {}

    def amended(self, operation: str, asked: Body, cluster: Body) -> Body:
        """A cluster with how its API authenticates, which moto neither keeps nor says."""
        own = self.clusters.setdefault(asked["name"], {})
        if operation == "CreateCluster":
            mode = asked.get("accessConfig", {}).get("authenticationMode", "CONFIG_MAP")  # EKS' own default
            own["accessConfig"] = {"authenticationMode": mode}
        return cluster | own

    def addon(self, cluster: str, name: str, version: str, **values: Any) -> Body:
        """There is an add-on; `values`: its configuration, written as JSON."""
        body = {
            "addonName": name,
            "clusterName": cluster,
            "status": "ACTIVE",
            "addonVersion": version,
            "health": {"issues": []},
            "addonArn": _arn(f"addon/{cluster}/{name}/0"),
            "createdAt": CREATED_S,
            "modifiedAt": CREATED_S,
        }
        self.addons[cluster, name] = body | ({"configurationValues": json.dumps(values)} if values else {})
        return self.addons[cluster, name]

    def entry(self, cluster: str, principal: str, kind: str = "STANDARD", groups: tuple[str, ...] = ()) -> Body:
        """There is an access entry."""
        self.entries[cluster, principal] = {
            "clusterName": cluster,
            "principalArn": principal,
            "kubernetesGroups": list(groups),
            "accessEntryArn": _arn(f"access-entry/{cluster}/role/{ACCOUNT}/{principal.rpartition('/')[2]}/0"),
            "createdAt": CREATED_S,
            "modifiedAt": CREATED_S,
            "username": principal,
            "type": kind,
        }
        return self.entries[cluster, principal]

    def _list_addons(self, asked: Body) -> Body:
        return {"addons": [name for cluster, name in self.addons if cluster == asked["clusterName"]]}

    def _describe_addon(self, asked: Body) -> Body:
        return {"addon": _find(self.addons, "addon", asked["clusterName"], asked["addonName"])}

    def _create_addon(self, asked: Body) -> Body:
        cluster, name = asked["clusterName"], asked["addonName"]
        _new(self.addons, "addon", cluster, name)
        made = self.addon(cluster, name, asked.get("addonVersion", "v1.0.0-eksbuild.1"))
        same = ("serviceAccountRoleArn", "configurationValues", "tags")
        made |= {field: asked[field] for field in same if field in asked}
        return {"addon": made}

    def _delete_addon(self, asked: Body) -> Body:
        found = _find(self.addons, "addon", asked["clusterName"], asked["addonName"])
        del self.addons[asked["clusterName"], asked["addonName"]]
        return {"addon": found | {"status": "DELETING"}}

    def _list_entries(self, asked: Body) -> Body:
        return {"accessEntries": [principal for cluster, principal in self.entries if cluster == asked["clusterName"]]}

    def _describe_entry(self, asked: Body) -> Body:
        return {"accessEntry": _find(self.entries, "access entry", asked["clusterName"], asked["principalArn"])}

    def _create_entry(self, asked: Body) -> Body:
        cluster, principal = asked["clusterName"], asked["principalArn"]
        _new(self.entries, "access entry", cluster, principal)
        groups = tuple(asked.get("kubernetesGroups", ()))
        return {"accessEntry": self.entry(cluster, principal, asked.get("type", "STANDARD"), groups)}

    def _associate(self, asked: Body) -> Body:
        cluster, principal = asked["clusterName"], asked["principalArn"]
        _find(self.entries, "access entry", cluster, principal)
        times = {"associatedAt": CREATED_S, "modifiedAt": CREATED_S}
        policy = {"policyArn": asked["policyArn"], "accessScope": asked["accessScope"], **times}
        self.policies.setdefault((cluster, principal), []).append(policy)
        return {"clusterName": cluster, "principalArn": principal, "associatedAccessPolicy": policy}

    def _list_policies(self, asked: Body) -> Body:
        cluster, principal = asked["clusterName"], asked["principalArn"]
        found = self.policies.get((cluster, principal), [])
        return {"clusterName": cluster, "principalArn": principal, "associatedAccessPolicies": found}

    def _list_associations(self, asked: Body) -> Body:
        found = [one for (cluster, _), one in self.associations.items() if cluster == asked["clusterName"]]
        return {"associations": found}

    def operations(self) -> dict[str, Any]:
        return {
            "ListAddons": self._list_addons,
            "DescribeAddon": self._describe_addon,
            "CreateAddon": self._create_addon,
            "DeleteAddon": self._delete_addon,
            "ListAccessEntries": self._list_entries,
            "DescribeAccessEntry": self._describe_entry,
            "CreateAccessEntry": self._create_entry,
            "AssociateAccessPolicy": self._associate,
            "ListAssociatedAccessPolicies": self._list_policies,
            "ListPodIdentityAssociations": self._list_associations,
        }


def _find(kept: dict[tuple[str, str], Body], kind: str, cluster: str, name: str) -> Body:
    if (cluster, name) not in kept:
        raise Refused("ResourceNotFoundException", f"No {kind}: {name} found in cluster: {cluster}", 404)
    return kept[cluster, name]


def _new(kept: dict[tuple[str, str], Body], kind: str, cluster: str, name: str) -> None:
    if (cluster, name) in kept:
        raise Refused("ResourceInUseException", f"The specified {kind} {name} is already in use on this cluster.", 409)


def _arn(resource: str) -> str:
    return f"arn:aws:eks:{REGION}:{ACCOUNT}:{resource}"
