"""AWS Price List's GetProducts, a stand-in: a document per price, in the form that the service publishes."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.gate import REGION, Refused

Body = dict[str, Any]


class Prices:
    """`hourly`: instance type (ml.…) → dollars per hour of a HyperPod cluster in the stand-in's Region."""

    def __init__(self) -> None:
        self.hourly: dict[str, float] = {}
        self.effective = "2026-11-01T00:00:00Z"

    def get(self, asked: Body) -> Body:
        if asked.get("ServiceCode") != "AmazonSageMaker":
            raise Refused("NotFoundException", f"The service {asked.get('ServiceCode')} is not there.")
        products = [self._product(kind, price) for kind, price in self.hourly.items()]
        for one in asked.get("Filters", ()):
            products = [each for each in products if each["product"]["attributes"].get(one["Field"]) == one["Value"]]
        return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(each) for each in products]}

    def _product(self, kind: str, price: float) -> Body:
        # Attributes as SageMaker's offers have them; that a HyperPod offer's component is "Cluster": live?
        attributes = {
            "servicecode": "AmazonSageMaker",
            "instanceName": kind,
            "instanceType": f"{kind}-Cluster",
            "component": "Cluster",
            "regionCode": REGION,
            "location": "US East (Ohio)",
            "operation": "RunInstance",
        }
        dimension = {"unit": "Hrs", "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": f"{price:.10f}"}}
        term = {"effectiveDate": self.effective, "priceDimensions": {f"{kind}.OND.1": dimension}}
        return {
            "product": {"productFamily": "ML Instance", "sku": kind, "attributes": attributes},
            "serviceCode": "AmazonSageMaker",
            "terms": {"OnDemand": {f"{kind}.OND": term}},
            "publicationDate": self.effective,
        }

    def operations(self) -> dict[str, Any]:
        return {"GetProducts": self.get}
