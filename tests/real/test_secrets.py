"""Prompts and tickets of requests to real engines: in no log of the fleet, in no answer to somebody else."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.real.fleet import Fleet
from tests.real.test_attack import bodies

pytestmark = pytest.mark.real
MARK = "the mark of a prompt that nobody but its author may read"


def test_no_log_has_a_prompt_or_a_ticket(pd: Fleet, http: httpx.Client) -> None:
    ids = http.post(f"{pd.url}/tokenize", json={"prompt": MARK}).json()["tokens"]
    assert len(ids) >= len(MARK)
    good = {path: body for path, body in bodies(MARK).items() if path != "/v1/embeddings"}
    answers = [http.post(pd.url + path, json=body) for path, body in good.items()]
    answers += [http.post(pd.url + path, json={**b, "stream": True}) for path, b in good.items() if path != "/tokenize"]
    assert {answer.status_code for answer in answers} == {200}
    assert not [answer.text for answer in answers if "remote_" in answer.text]
    # What the gateway refuses, what the engines refuse, what they cannot make anything of.
    odd = [
        *({"temperature": value} for value in (-1, MARK, [MARK])),
        *({"seed": MARK}, {"stop": [MARK, 7]}, {"logit_bias": {MARK: 1}}, {"n": MARK}, {"model": MARK}, {MARK: 1}),
        *({"structured_outputs": {kind: MARK + "("}} for kind in ("regex", "grammar", "json")),
        *({"response_format": {"type": "json_schema", "json_schema": {"name": MARK, "schema": MARK}}}, {"user": MARK}),
        *({"kv_transfer_params": {"remote_host": MARK}}, {"stream_options": {MARK: 1}}, {"max_tokens": 10**6}),
    ]
    refused = [http.post(f"{pd.url}/v1/completions", json={"prompt": MARK, **more}) for more in odd]
    refused += [http.post(f"{pd.url}/v1/chat/completions", json={"messages": [{"role": MARK, "content": MARK}]})]
    refused += [http.post(f"{pd.url}/v1/completions", content=f'{{"prompt": "{MARK}"')]
    statuses = [answer.status_code for answer in refused]
    assert set(statuses) <= {200, 400, 404}, [answer.text for answer in refused if answer.status_code >= 500]
    assert sum(status != 200 for status in statuses) > 10

    admin = pd.state()["admin_url"]
    shown = {path: http.get(admin + path).text for path in ("/metrics", "/status")}
    shown |= {str(file): file.read_text(errors="replace") for file in pd.folder.rglob("*") if file.is_file()}
    assert len(shown) > 4
    assert sum("event=request" in text for text in shown.values()) == 1
    marks = [MARK, MARK[:20], json.dumps(ids)[1:-1], str(ids)[1:60], "remote_block_ids"]
    found = [(where, mark) for where, text in shown.items() for mark in marks if mark in text]
    assert found == [], [_around(shown[where], mark) for where, mark in found]


def _around(text: str, mark: str) -> str:
    at = text.index(mark)
    return text[max(0, at - 300) : at + 100]
