"""A worker's admin port: what it runs, with whom it can exchange KV, whether it is ready; drain; device counters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from hyperpd import model, versions
from hyperpd.errors import RecipeError
from hyperpd_runtime.worker import WorkerProcess

_INFINIBAND = Path("/sys/class/infiniband")


def app(process: WorkerProcess, model_path: str, drain: Callable[[], None]) -> FastAPI:
    """The routes of one worker. drain: begins an orderly end of this process."""
    recipe = process.recipe
    registry = CollectorRegistry()
    registry.register(_DeviceCounters())
    api = FastAPI(title="hyperpd worker", docs_url=None, redoc_url=None, openapi_url=None)

    def _kv_shape() -> str:
        with contextlib.suppress(RecipeError):  # an id of the hub
            return model.load(Path(model_path), recipe.recipe.model.dtype).kv_shape
        return ""

    @api.get("/hyperpd/fingerprint")
    async def fingerprint() -> dict[str, Any]:
        said = recipe.recipe.fingerprint(process.worker.role, model_path, versions.installed(), _kv_shape())
        return {
            "worker": process.worker.name,
            "recipe": recipe.recipe.name,
            "recipe_digest": recipe.digest,
            **said.document(),
        }

    @api.get("/ready")
    async def ready() -> Response:
        state = process.state
        if state == "ready" and not await process.answers():
            state = "engine does not answer"
        return JSONResponse({"state": state}, 200 if state == "ready" else 503)

    @api.post("/drain", status_code=202)
    async def drain_worker() -> dict[str, str]:
        drain()
        return {"state": "draining"}

    @api.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return api


class _DeviceCounters(Collector):
    """The hardware counters of every RDMA device, as the kernel shows them; the KV path's own truth."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "hyperpd_rdma_hardware", "Hardware counters of RDMA devices (EFA)", labels=["device", "port", "counter"]
        )
        for file in sorted(_INFINIBAND.glob("*/ports/*/hw_counters/*")):
            text = file.read_text().strip()
            if text.isdigit():
                family.add_metric([file.parts[-5], file.parts[-3], file.name], int(text))
        yield family
