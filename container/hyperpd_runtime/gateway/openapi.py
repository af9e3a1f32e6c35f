"""The API port as an OpenAPI document, made of the lists that the gateway itself goes by.

The admin port shows it to operators; clients know the APIs by their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperpd import __version__
from hyperpd.recipe import Recipe, RecipeFile
from hyperpd_runtime.gateway.apis import APIS, CHAT, COMPLETIONS, MESSAGES, Api
from hyperpd_runtime.gateway.fields import FIELDS
from hyperpd_runtime.gateway.passed import ADAPTERS, PASSED
from hyperpd_runtime.gateway.steering import EXPLAIN, MODE, SESSION, SESSION_NAME

Object = dict[str, Any]

_PROBES = ("/ping", "/health")
_TEXT: Object = {"type": "string", "minLength": 1}
_IDS: Object = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PROMPT: Object = {
    "anyOf": [_TEXT, _IDS, *({"type": "array", "items": one, "minItems": 1} for one in (_TEXT, _IDS))],
    "description": "One text or list of token ids, or a list of several: each has its answer",
}
_CONTENT: Object = {"type": ["string", "array", "null"], "items": {"type": "object", "properties": {"type": _TEXT}}}
_CHAT_MESSAGES: Object = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "object", "properties": {"role": _TEXT, "content": _CONTENT}, "required": ["role"]},
}
# What is known of a field beyond its type.
_DETAILS: Mapping[str, Object] = {
    "prompt": _PROMPT,
    "messages": _CHAT_MESSAGES,
    "input": {"anyOf": [_TEXT, {"type": "array", "minItems": 1}]},
    "max_tokens": {**FIELDS["max_tokens"], "description": "Longest output, in tokens"},
    "n": {**FIELDS["n"], "description": "Answers to each prompt; each counts as a request of its own"},
    "stream": {**FIELDS["stream"], "description": "Server-sent events"},
}
_REQUIRED = {
    "/tokenize": [],
    "/detokenize": ["tokens"],
    "/v1/messages/count_tokens": ["messages"],
    "/v1/embeddings": ["input"],
    "/v1/score": ["queries", "documents"],
    "/v1/rerank": ["query", "documents"],
    "/classify": ["input"],
}
_STATUSES = {
    "400": "A field or its value, the body's form, or a limit of the recipe; the engine's own refusals too",
    "401": "No API key, or an unknown one",
    "403": "Only for operators, or for nobody",
    "404": "No such route or model",
    "405": "Another method",
    "408": "The body did not come in time",
    "413": "The body is longer than the recipe allows",
    "415": "The body is no JSON, or compressed",
    "429": "Too much at once; Retry-After says when to come back",
    "431": "The headers are longer than the recipe allows",
    "500": "A defect of the gateway, or the engine failed",
    "502": "A worker failed; asking again may help",
    "503": "No worker is ready; Retry-After says when to come back",
    "504": "Slower than the recipe allows",
}
_HEADERS: Object = {
    name: {"schema": {"type": "string"}, "description": what}
    for name, what in {
        "x-request-id": "The client's own id, or the gateway's",
        "x-hyperpd-request-id": "The id in the gateway's log",
    }.items()
}
_OF_SESSION = "A conversation's id: its worker holds the last answer too, where a prompt begins with the last one"
# What a request may say beside its body.
_SAID: list[Object] = [
    {"name": name, "in": "header", "schema": schema, "description": what}
    for name, schema, what in (
        (SESSION, {"type": "string", "pattern": f"^{SESSION_NAME}$"}, _OF_SESSION),
        (EXPLAIN, {"enum": ["1"]}, "Has the answer say how it was served, in x-hyperpd-decision. For operators"),
        (MODE, {"enum": ["pd", "aggregated"]}, "Forces how it is served, or is refused. For operators"),
    )
]


def document(file: RecipeFile) -> Object:
    """The API that a gateway of this recipe has, as OpenAPI 3.1."""
    recipe = file.recipe
    known = _known(recipe)
    paths: Object = {}
    for api in APIS:
        operation = _operation(api.name, _body(api.fields, [api.prompt], known), [api], streams=True)
        paths[api.path] = {"post": operation | {"parameters": _SAID}}
    routes = {f"route={api.path}": api for api in APIS}
    paths["/invocations"] = {
        "post": {
            **_operation(
                "invocations", {"anyOf": [_body(api.fields, [api.prompt], known) for api in APIS]}, APIS, streams=True
            ),
            "parameters": [
                *_SAID,
                {
                    "name": "X-Amzn-SageMaker-Custom-Attributes",
                    "in": "header",
                    "schema": {"enum": list(routes)},
                    "description": "Which API is meant; without it, chat where there are messages, else completions",
                },
            ],
        }
    }
    for path, fields in PASSED.items():
        answers = [MESSAGES if path.startswith(MESSAGES.path) else COMPLETIONS]
        body = _body(fields, _REQUIRED[path], known)
        paths[path] = {"post": _operation(path.strip("/").replace("/", "_"), body, answers)}
    for path in ADAPTERS:
        paths[path] = {method: _fixed(method, path) for method in ("get", "post", "put", "delete")}
    paths["/v1/models"] = {"get": {"operationId": "models", "responses": _responses([CHAT], _ref("Models"))}}
    for path in _PROBES:
        paths[path] = {method: _probe(method, path) for method in ("get", "head")}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"hyperpd: {recipe.name}", "version": __version__},
        "paths": paths,
        "components": {"schemas": _SCHEMAS, "securitySchemes": _KEYS},
        **({"security": [{name: []} for name in _KEYS]} if recipe.gateway.auth == "keys" else {}),
    }


def _known(recipe: Recipe) -> Object:
    """What is known of fields: by the gateway, and by this recipe's names and limits."""
    models = [recipe.model.name, *(adapter.name for adapter in recipe.model.adapters)]
    limits = recipe.gateway.limits
    known: Object = {**FIELDS, **_DETAILS, "model": {"enum": models, "description": f"Default: {models[0]}"}}
    known["n"] = {**known["n"], "maximum": limits.choices}
    if limits.output_tokens is not None:
        for field in {field for api in APIS for field in api.limits}:
            known[field] = {**known[field], "maximum": limits.output_tokens}
    return known


def _body(fields: frozenset[str], required: list[str], known: Object) -> Object:
    properties = {key: known.get(key, {}) for key in sorted(fields)}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _operation(name: str, body: Object, apis: list[Api] | tuple[Api, ...], *, streams: bool = False) -> Object:
    return {
        "operationId": name,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": _responses(apis, {"type": "object"}, streams=streams),
    }


def _responses(apis: list[Api] | tuple[Api, ...], answer: Object, *, streams: bool = False) -> Object:
    kinds: Object = {"application/json": {"schema": answer}}
    if streams:
        kinds["text/event-stream"] = {"schema": {"type": "string"}}
    errors = [_ref(name) for name in sorted({"MessagesError" if api is MESSAGES else "Error" for api in apis})]
    error = {"application/json": {"schema": errors[0] if len(errors) == 1 else {"anyOf": errors}}}
    refused = {
        status: {"description": what, "headers": _HEADERS, "content": error} for status, what in _STATUSES.items()
    }
    return {"200": {"description": "The answer", "headers": _HEADERS, "content": kinds}, **refused}


def _fixed(method: str, path: str) -> Object:
    named = "{name}" in path
    return {
        "operationId": f"{method}_{path.strip('/').replace('/', '_')}",
        "description": "Adapters are named in the recipe and never change while serving",
        "responses": {status: answer for status, answer in _responses([CHAT], {}).items() if status != "200"},
        **({"parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]} if named else {}),
    }


def _probe(method: str, path: str) -> Object:
    state = {"application/json": {"schema": _ref("Health")}}
    content = {"content": state} if method == "get" else {}
    return {
        "operationId": f"{method}_{path.strip('/')}",
        "security": [],
        "responses": {
            "200": {"description": "It would answer a request", **content},
            "503": {"description": "It would not, and why", **content},
            "405": {"description": "Another method", "content": {"application/json": {"schema": _ref("Error")}}},
        },
    }


def _ref(name: str) -> Object:
    return {"$ref": f"#/components/schemas/{name}"}


_KEYS: Object = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_DETAIL: Object = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What is wrong, and what to try"},
        "type": {"type": "string"},
        "code": {"type": ["string", "integer", "null"], "description": "A short, stable word; of an engine, a status"},
        "param": {"type": ["string", "null"], "description": "The field that is wrong"},
        "request_id": {"type": ["string", "null"]},
    },
    "required": ["message", "type"],
}
_SCHEMAS: Object = {
    "Error": {"type": "object", "properties": {"error": _DETAIL}, "required": ["error"]},
    "MessagesError": {
        "type": "object",
        "properties": {"type": {"const": "error"}, "error": _DETAIL, "request_id": {"type": ["string", "null"]}},
        "required": ["type", "error"],
    },
    "Health": {
        "type": "object",
        "properties": {"status": {"enum": ["ok", "unavailable"]}, "reason": {"type": "string"}},
        "required": ["status"],
    },
    "Models": {
        "type": "object",
        "properties": {
            "object": {"const": "list"},
            "data": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "object": {"const": "model"},
                        "owned_by": {"type": "string"},
                        "parent": {"type": ["string", "null"]},
                        "max_model_len": {"type": "integer"},
                    },
                    "required": ["id", "object"],
                },
            },
        },
        "required": ["object", "data"],
    },
}
