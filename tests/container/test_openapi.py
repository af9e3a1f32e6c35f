"""The OpenAPI document: as it should be, and true of the routes, fields and types that the gateway goes by."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.datastructures import Headers

from hyperpd.errors import RequestError
from hyperpd_runtime.gateway import apis, app, guard, openapi, steering
from hyperpd_runtime.gateway.apis import APIS, BY_PATH
from hyperpd_runtime.gateway.fields import FIELDS
from hyperpd_runtime.gateway.guard import Refused
from hyperpd_runtime.gateway.passed import PASSED
from tests.container.stack import running, tiny

DOCUMENT = openapi.document(tiny())


def schema(path: str) -> Any:
    body = DOCUMENT["paths"][path]["post"]["requestBody"]
    return jsonschema.Draft202012Validator(body["content"]["application/json"]["schema"])


def test_the_document_is_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def routes(served: FastAPI) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for route in served.routes:
        found.setdefault(route.path, set()).update(method.lower() for method in route.methods)  # type: ignore[attr-defined]
    return found


async def test_it_has_the_routes_of_the_api_port_and_no_others() -> None:
    async with running(tiny()) as stack:
        served = routes(app.api(stack.flow, stack.pool, tiny()))
    assert {path: set(methods) for path, methods in DOCUMENT["paths"].items()} == served


@pytest.mark.parametrize("path", [*BY_PATH, *PASSED])
def test_it_has_the_fields_that_are_let_in(path: str) -> None:
    allowed = BY_PATH[path].fields if path in BY_PATH else PASSED[path]
    assert set(schema(path).schema["properties"]) == allowed
    assert not schema(path).is_valid({"kv_transfer_params": {}})


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
@pytest.mark.parametrize("value", [None, True, 7, -7, 0.5, "x", ["x"], {"x": 1}], ids=repr)
def test_a_type_is_let_in_exactly_where_the_document_has_it(api: apis.Api, value: Any) -> None:
    good = {api.prompt: [{"role": "user"}] if api.prompt == "messages" else "x"}
    for field in FIELDS.keys() & api.fields - {"model", "stored", *good}:
        body = good | {field: value}
        try:
            guard.admit(dict(body), api, ["tiny-llama"])
            said = ""
        except RequestError as error:
            said = str(error)
        wrong_type = f"{field}: must be" in said
        assert schema(api.path).is_valid(body) != wrong_type, (field, value, said)


@pytest.mark.parametrize("path", [*BY_PATH, "/invocations"])
def test_it_has_the_headers_that_are_read_and_their_values(path: str) -> None:
    said = {one["name"]: one["schema"] for one in DOCUMENT["paths"][path]["post"]["parameters"]}
    assert {name for name in said if name.startswith("x-hyperpd-")} == {
        steering.SESSION,
        steering.EXPLAIN,
        steering.MODE,
    }
    for name, value in [(steering.MODE, value) for value in ("pd", "aggregated", "fast")] + [
        (steering.SESSION, value) for value in ("s", "a/b:c", "s" * 128, "s" * 129, "a b", "", "é")
    ]:
        try:
            steering.caller(Headers({name: value}), path, None, tiny().recipe.gateway)
            read = True
        except Refused:
            read = False
        assert jsonschema.Draft202012Validator(said[name]).is_valid(value) == read, (name, value)


def test_it_has_the_limits_of_the_recipe() -> None:
    limited = openapi.document(tiny(gateway={"limits": {"choices": 9, "output_tokens": 99}}))
    body = limited["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    found = {field: schema["maximum"] for field, schema in body["properties"].items() if "maximum" in schema}
    assert found == {"n": 9, "max_tokens": 99, "max_completion_tokens": 99}


async def test_operators_are_shown_it_and_clients_are_not() -> None:
    file = tiny(model={"adapters": [{"name": "law", "path": "/law"}]}, gateway={"auth": "keys"})
    async with running(tiny()) as stack:
        assert (await stack.http.get("/openapi.json")).status_code == 404
        shown = app.admin(stack.pool, file, lambda: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shown), base_url="http://admin") as http:
        document = (await http.get("/openapi.json")).json()
    body = document["paths"]["/tokenize"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["model"]["enum"] == ["tiny-llama", "law"]
    assert document["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert document["paths"]["/ping"]["get"]["security"] == []
