"""Who may ask, and for what: the key file, and the key of a request. Keys are kept and compared as SHA-256 only."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints, ValidationError
from starlette.datastructures import Headers

from hyperpd.errors import RecipeError, Rejected
from hyperpd.problems import nearest
from hyperpd.recipe import Recipe
from hyperpd_runtime.gateway import telemetry

log = logging.getLogger("hyperpd.gateway")
_LOOK_EVERY_S = 2.0
_SALT_LENGTH = 43  # with another salt (handoff.py) below the 128 characters that vLLM takes
_NO_LIST = """not a JSON list like [{"name": "team-a", "sha256": "…", "scope": "user", "concurrent_requests": 8}]"""


class Key(BaseModel):
    """One entry of the key file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]{0,63}$")]  # shown in logs
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]  # of the key's bytes, without a line end
    scope: Literal["user", "operator"]
    concurrent_requests: int | None = Field(ge=1)  # at one gateway; None: no limit of its own
    allow: frozenset[Literal["priority", "prompt_embeds"]] = frozenset()  # fields that nobody else may send

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.sha256)

    @property
    def cache_salt(self) -> str:
        """What keeps this key's prefixes apart from those of others, in every engine's prefix cache.

        All gateways make the same of the same key file, with no second secret to hand out. Nobody guesses it who does
        not know the key or its entry, no client can send one, and engines, which may publish it with KV events, learn
        nothing of that entry by it. A new key begins with a cold cache.
        """
        return hmac.new(self.digest, b"hyperpd cache salt", hashlib.sha256).hexdigest()[:_SALT_LENGTH]


def parse(content: bytes, where: str) -> tuple[Key, ...]:
    """The keys of a file. Raises RecipeError with every problem, and never with what was found: it may be a key."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, list) or not document:
        raise RecipeError(where, [_NO_LIST])
    found = []
    for field in ("name", "sha256"):
        values = [str(entry.get(field, "")).lower() if isinstance(entry, dict) else "" for entry in document]
        twice = [number for number, value in enumerate(values) if value and value in values[:number]]
        found += [f"{number}.{field}: the same as of an entry before" for number in twice]
    try:
        keys = RootModel[list[Key]].model_validate_json(content).root
    except ValidationError as error:
        found += [_problem(item) for item in error.errors(include_url=False, include_input=False)]
    if found:
        raise RecipeError(where, found)
    return tuple(keys)


def _problem(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":  # its place alone: somebody may have written a key there
        return f"{item['loc'][0]}: a field that is not known{nearest(str(item['loc'][-1]), list(Key.model_fields))}"
    path = ".".join(str(part) for part in item["loc"])
    return f"{path}: {'missing; add it' if item['type'] == 'missing' else item['msg']}"


def of(recipe: Recipe, path: str) -> Keys | None:
    """The keys that `recipe` asks for, from the file at `path`; None where clients need none.

    Raises RecipeError when the two do not go together or the file cannot be used.
    """
    if recipe.gateway.auth == "none":
        if path:
            raise RecipeError("settings", ["keys-file: the recipe says gateway.auth: none, so nobody would need a key"])
        return None
    if not path:
        raise RecipeError("settings", ["keys-file: missing; the recipe says gateway.auth: keys"])
    return Keys(Path(path))


def _given(headers: Headers) -> list[bytes]:
    """The SHA-256 of each key that a request's headers hold; of the same key in several, once.

    x-api-key is what Anthropic's clients send, and what comes through proxies that use up Authorization (the API server
    of Kubernetes). Another scheme of Authorization is meant for such a proxy, and is no key.
    """
    tokens = headers.getlist("x-api-key")
    for authorization in headers.getlist("authorization"):
        scheme, _, bearer = authorization.partition(" ")
        tokens.append(bearer if scheme.lower() == "bearer" else "")
    found = {token.strip().encode("latin-1") for token in tokens} - {b""}  # latin-1: as headers are decoded
    return [hashlib.sha256(token).digest() for token in found]


class Keys:
    """The keys of one file, followed as it changes. A file that cannot be used leaves the keys as they were."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem = ""  # why the file, as it is now, is not used
        try:
            self._seen: bytes | None = path.read_bytes()
        except OSError as error:
            raise RecipeError(str(path), [f"cannot be read: {error.strerror}"]) from None
        self._keys = parse(self._seen, str(path))

    def find(self, headers: Headers) -> Key:
        """The key a request came with, in either header. Raises Rejected (401)."""
        given = _given(headers)
        if not given:
            what = "no API key; send Authorization: Bearer <key>, or x-api-key: <key>"
            raise Rejected(what, status=401, code="missing_api_key")
        if len(given) > 1:
            what = "its headers hold different API keys; send one of them"
            raise Rejected(what, status=401, code="conflicting_api_keys")
        # All of them, so that the time says nothing of how near one was.
        matching = [key for key in self._keys if hmac.compare_digest(key.digest, given[0])]
        if not matching:
            raise Rejected(
                "the API key is not known here; ask who runs this gateway for one", status=401, code="invalid_api_key"
            )
        return matching[0]

    async def watch(self) -> None:
        """Look at the file again and again, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Take the keys of the file if it changed. By content: Kubernetes replaces a Secret behind a link."""
        try:
            content: bytes | None = await asyncio.to_thread(self._path.read_bytes)
        except OSError:
            content = None
        if content == self._seen:
            return
        self._seen = content
        try:
            if content is None:
                raise RecipeError(str(self._path), ["cannot be read any more"])
            self._keys, self.problem = parse(content, str(self._path)), ""
        except RecipeError as error:
            self.problem = "; ".join(error.problems)
            telemetry.KEY_FILE_FAILURES.inc()
            log.error("event=keys_kept file=%s keys=%d why=%r", self._path, len(self._keys), self.problem)
        else:
            log.info("event=keys file=%s keys=%d", self._path, len(self._keys))

    def status(self) -> dict[str, Any]:
        """How many there are, and what is wrong with the file, as JSON."""
        return {"count": len(self._keys), "problem": self.problem or None}
