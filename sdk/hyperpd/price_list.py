"""HyperPod's prices as AWS's Price List API says them, and where the last answers are kept.

The offer's shape is that of SageMaker's price file as public code reads it: instance type ml.…-Cluster, component
Cluster, usage type REGION-Cluster:ml.…; unverified on a live account. A search for ml.… alone gives Studio's prices,
and ReservedCluster is another product, so neither is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import date as Day
from pathlib import Path
from typing import Any

from hyperpd.errors import CloudError
from hyperpd.prices import HYPERPOD, Price

_ENDPOINT = "us-east-1"  # one of the few Regions that serve the price list of all
_SOURCE = "AWS Price List API"
_TIMEOUTS_S = {"connect_timeout": 5, "read_timeout": 20}


def live(instance_types: Iterable[str], region: str, today: Day) -> tuple[dict[str, Price], CloudError | None]:
    """Type → price now, of those that the list has; kept for `cached`. And the last failure, where one could not be
    asked for."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    found: dict[str, Price] = {}
    failure = None
    try:
        client = boto3.client("pricing", region_name=_ENDPOINT, config=Config(**_TIMEOUTS_S))
        for name in instance_types:
            filters = {"instanceType": f"{name}-Cluster", "regionCode": region}
            try:
                answer = client.get_products(
                    ServiceCode="AmazonSageMaker",
                    Filters=[{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in filters.items()],
                )
            except ClientError as error:
                code = error.response["Error"]["Code"]
                failure = CloudError(f"pricing GetProducts: {code}", operation="GetProducts", code=code)
                continue
            if prices := sorted(set(hourly(answer["PriceList"], name, region))):
                found[name] = Price(prices[-1], HYPERPOD, _SOURCE, today)
    except BotoCoreError as error:  # no way there: the others would only wait, too
        failure = CloudError(f"pricing GetProducts: {error}", operation="GetProducts", code=type(error).__name__)
    if found:
        _keep(region, found)
    return found, failure


def hourly(products: Iterable[Any], instance_type: str, region: str) -> Iterator[float]:
    """Dollars per hour of a HyperPod node in these products (JSON texts, or read); none where nothing fits."""
    usage = re.compile(rf"([A-Z0-9]+-)?Cluster:{re.escape(instance_type)}")
    for product in products:
        one = json.loads(product) if isinstance(product, str) else product
        attributes = one.get("product", {}).get("attributes", {})
        if attributes.get("component") != "Cluster" or attributes.get("regionCode") != region:
            continue
        if attributes.get("instanceType") != f"{instance_type}-Cluster":
            continue
        if not usage.fullmatch(attributes.get("usagetype", f"Cluster:{instance_type}")):
            continue
        for term in one.get("terms", {}).get("OnDemand", {}).values():
            for dimension in term.get("priceDimensions", {}).values():
                usd = dimension.get("pricePerUnit", {}).get("USD")
                if usd and dimension.get("unit") == "Hrs" and float(usd) > 0:
                    yield float(usd)


def cached(region: str) -> dict[str, Price]:
    """Type → price when it was last looked up; what is there and cannot be read is left out."""
    found = {}
    for name, row in _kept().get(region, {}).items():
        with contextlib.suppress(KeyError, TypeError, ValueError):
            day = Day.fromisoformat(row["date"])
            found[name] = Price(float(row["usd_per_hour"]), f"{HYPERPOD}, as it was", _SOURCE, day)
    return found


def _kept() -> dict[str, dict[str, Any]]:
    try:
        kept = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return {region: rows for region, rows in kept.items() if isinstance(rows, dict)} if isinstance(kept, dict) else {}


def _keep(region: str, found: dict[str, Price]) -> None:
    """Beside what is there; a cache that cannot be written is none."""
    kept = _kept()
    rows = {name: {"usd_per_hour": price.usd_per_hour, "date": price.date.isoformat()} for name, price in found.items()}
    kept[region] = kept.get(region, {}) | rows
    part = _file().with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(kept, indent=1))
        part.replace(_file())


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyperpd" / "prices.json"
