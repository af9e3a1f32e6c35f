"""Bad input over a socket: refused as the table says, in the shape of its API, and no engine hears of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import jsonschema
import pytest
import pytest_asyncio

from hyperpd_runtime.gateway import openapi
from tests.container.refusals import ALL, COMPLETIONS, INVOCATIONS, LIMITS, MESSAGES, SECRET, Refusal
from tests.container.stack import Stack, running, tiny

FILE = tiny(gateway={"limits": LIMITS})
DOCUMENT = openapi.document(FILE)
KINDS = {400: "invalid_request_error", 403: "permission_error", 404: "not_found_error"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running(FILE) as started:
        yield started


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("refusal", ALL, ids=lambda one: one.name)
async def test_bad_input_is_refused(stack: Stack, refusal: Refusal, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    headers = {"content-type": "application/json", "x-request-id": "mine", **refusal.headers}
    answer = await stack.http.request(refusal.method, refusal.path, content=refusal.body, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (refusal.status, refusal.code, refusal.param)
    said = error["message"]
    assert all(word in said for word in refusal.words.split()), said
    assert len(said) < 1000
    assert SECRET not in (caplog.text if refusal.code == "model_not_found" else caplog.text + said)
    # As clients of that API expect it, and as the document says.
    anthropic = refusal.path.startswith(MESSAGES) or "route=/v1/messages" in refusal.headers.values()
    assert answer.json().get("type") == ("error" if anthropic else None)
    assert error["type"] == (KINDS.get(refusal.status) if anthropic and refusal.status in KINDS else KINDS[400])
    if "x-hyperpd-request-id" in answer.headers:  # it came as far as a record, which is logged
        assert error["request_id"] == answer.json().get("request_id", error["request_id"])
        assert ("request_id" in answer.json()) == anthropic
        assert error["request_id"] == answer.headers["x-hyperpd-request-id"] in caplog.text
        assert answer.headers["x-request-id"] == "mine"
    operations = DOCUMENT["paths"].get(refusal.path, {})
    if operation := operations.get(refusal.method.lower()):
        schema = operation["responses"][str(refusal.status)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": DOCUMENT["components"]})
    assert stack.prefill.bodies == stack.decode.bodies == []
    assert (stack.pool.in_flight, stack.leases) == (0, {})


def test_the_table_is_long_enough() -> None:
    assert len({one.name for one in ALL}) == len(ALL) >= 60


async def test_what_is_odd_and_good_is_answered() -> None:
    """The other side of the table: nothing of this may be refused."""
    async with running(FILE) as stack:
        for name, body, headers in (
            ("BOM", b'\xef\xbb\xbf{"prompt": "hello"}', {}),
            ("no type", b'{"prompt": "hello"}', {"content-type": ""}),
            ("a charset", b'{"prompt": "hello"}', {"content-type": "application/JSON; charset=UTF-8"}),
            ("octets", b'{"prompt": "hello"}', {"content-type": "application/octet-stream"}),
            ("not compressed", b'{"prompt": "hello"}', {"content-encoding": "identity"}),
            ("a whole pair", b'{"prompt": "hello", "user": "\\ud83d\\ude00"}', {}),
            ("an escaped backslash", b'{"prompt": "hello", "user": "\\\\ud83d"}', {}),
            ("NUL", b'{"prompt": "hello", "user": "\\u0000"}', {}),
            ("as deep as allowed", b'{"prompt": "hello", "metadata": ' + b'{"a":' * 15 + b"1" + b"}" * 16, {}),
            ("brackets in a text", b'{"prompt": "hello", "user": "' + b"[{" * 500 + b'"}', {}),
            ("null where nothing is", b'{"prompt": "hello", "n": null, "stream": null, "model": null}', {}),
            ("as much as allowed", b'{"prompt": "hello", "max_tokens": 512, "n": 8, "temperature": 1}', {}),
        ):
            answer = await stack.http.post(COMPLETIONS, content=body, headers=headers)
            assert answer.status_code == 200, (name, answer.text)
        answer = await stack.http.post(INVOCATIONS, content=b'{"prompt": "hello"}')
        assert answer.json()["choices"][0]["text"] == "after hello"
