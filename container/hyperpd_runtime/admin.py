"""A worker's admin port: which recipe it runs, with whom it can exchange KV, and whether it is ready."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from hyperpd import versions
from hyperpd_runtime.worker import WorkerProcess


def app(process: WorkerProcess, model_path: str) -> FastAPI:
    """The routes of one worker."""
    recipe = process.recipe
    said = recipe.recipe.fingerprint(process.worker.role, model_path, versions.installed())
    api = FastAPI(title="hyperpd worker", docs_url=None, redoc_url=None, openapi_url=None)

    @api.get("/hyperpd/fingerprint")
    async def fingerprint() -> dict[str, Any]:
        return {
            "worker": process.worker.name,
            "recipe": recipe.recipe.name,
            "recipe_digest": recipe.digest,
            **said.document(),
        }

    @api.get("/ready")
    async def ready() -> Response:
        return JSONResponse({"state": process.state}, 200 if process.state == "ready" else 503)

    return api
