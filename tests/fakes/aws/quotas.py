"""Service Quotas, a stand-in: moto knows VPC's defaults alone.

SageMaker's are those of Control (instances per type for cluster usage); the codes are made up, the names are not.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tests.fakes.gate import ACCOUNT, REGION, Refused

Body = dict[str, Any]
_NAMES = {"sagemaker": "Amazon SageMaker", "vpc": "Amazon Virtual Private Cloud (Amazon VPC)"}
_NAMES |= {"ec2": "Amazon Elastic Compute Cloud (Amazon EC2)", "eks": "Amazon Elastic Kubernetes Service (Amazon EKS)"}
PAGE = 100


class Quotas:
    """`clusters`: instance type → instances, shared with Control; `others`: (service code, quota's name) → value."""

    def __init__(self, clusters: dict[str, int]) -> None:
        self.clusters = clusters
        self.others: dict[tuple[str, str], float] = {
            ("vpc", "Network interfaces per Region"): 5000,
            ("ec2", "EC2-VPC Elastic IPs"): 5,
            ("eks", "Clusters"): 100,
        }

    def _all(self, service: str) -> list[Body]:
        if service not in _NAMES:
            raise Refused("NoSuchResourceException", f"The request failed because service {service} does not exist.")
        named = {f"{kind} for cluster usage": float(count) for kind, count in self.clusters.items()}
        others = {name: value for (code, name), value in self.others.items() if code == service}
        return [_quota(service, *one) for one in ((named if service == "sagemaker" else {}) | others).items()]

    def list_(self, asked: Body) -> Body:
        found = self._all(asked["ServiceCode"])
        start = int(asked.get("NextToken", "0"))
        end = start + asked.get("MaxResults", PAGE)
        return {"Quotas": found[start:end]} | ({"NextToken": str(end)} if end < len(found) else {})

    def get(self, asked: Body) -> Body:
        for one in self._all(asked["ServiceCode"]):
            if one["QuotaCode"] == asked["QuotaCode"]:
                return {"Quota": one}
        raise Refused("NoSuchResourceException", f"The request failed because quota {asked['QuotaCode']} is not there.")

    def operations(self) -> dict[str, Any]:
        return {
            "ListServiceQuotas": self.list_,
            "ListAWSDefaultServiceQuotas": self.list_,
            "GetServiceQuota": self.get,
            "GetAWSDefaultServiceQuota": self.get,
        }


def _quota(service: str, name: str, value: float) -> Body:
    code = f"L-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"
    return {
        "ServiceCode": service,
        "ServiceName": _NAMES[service],
        "QuotaArn": f"arn:aws:servicequotas:{REGION}:{ACCOUNT}:{service}/{code}",
        "QuotaCode": code,
        "QuotaName": name,
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
