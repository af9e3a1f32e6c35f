"""A worker's admin port: which recipe it runs, and whether it would serve a request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from hyperpd_runtime.worker import WorkerProcess


def app(process: WorkerProcess) -> FastAPI:
    """The routes of one worker."""
    api = FastAPI(title="hyperpd worker", docs_url=None, redoc_url=None, openapi_url=None)

    @api.get("/hyperpd/fingerprint")
    async def fingerprint() -> dict[str, Any]:
        recipe = process.recipe
        return {"worker": process.worker.name, "recipe": recipe.recipe.name, "recipe_digest": recipe.digest}

    @api.get("/ready")
    async def ready() -> Response:
        return JSONResponse({"state": process.state}, 200 if process.state == "ready" else 503)

    return api
