"""Single roles, as containers run them: one gateway before workers that were started one by one.

Only workers that can exchange KV are paired; for each of the others the status names the difference,
and their engines are never asked to try.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hyperpd.recipe import load
from hyperpd_runtime.gateway import handoff
from hyperpd_runtime.gateway.apis import COMPLETIONS
from tests.real.fleet import Fleet, until
from tests.real.prompts import complete, prompt

pytestmark = pytest.mark.real
FROM_PREFILL = {"source": "external_kv_transfer"}


def changed(folder: Path, name: str, **model: Any) -> str:
    """tiny-cpu-1p1d with another block, as a file."""
    document = yaml.safe_load(load("tiny-cpu-1p1d").path.read_text())
    document["kv_transfer"]["block_size_tokens"] = model.pop("block_size_tokens", 128)
    tensor = model.pop("tensor", 1)
    document["prefill"] = {**document["prefill"], "parallel": {"tensor": tensor}}
    document["decode"] = {**document["decode"], "parallel": {"tensor": tensor}}
    document["model"] |= model
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


# What is changed of a worker → why it is not paired with one that is as shipped.
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "prefill tp2": ({"tensor": 2}, "tensor_fan_in: prefill TP2 is above decode TP1"),
    "decode dtype": ({"dtype": "bfloat16"}, "engine_digest: dtype is 'float32' on prefill, 'bfloat16' on decode"),
    "decode block": ({"block_size_tokens": 64}, "block_size_multiple: decode's 64 tokens"),
    "decode model": ({"generated": "tiny-moe"}, "engine_digest: model is "),
}


@pytest.mark.parametrize(
    "others",
    [
        pytest.param(["decode dtype"], id="one"),
        pytest.param(list(OTHERS), id="all", marks=pytest.mark.nightly),
    ],
)
def test_only_workers_that_can_exchange_kv_are_paired(tmp_path: Path, http: httpx.Client, others: list[str]) -> None:
    shipped = {role: (role, "tiny-cpu-1p1d") for role in ("decode", "prefill")}
    workers = shipped | {
        name: (name.split()[0], changed(tmp_path, name.split()[1], **OTHERS[name][0])) for name in others
    }
    with contextlib.ExitStack() as stack:
        fleets = {}
        for number, (name, (role, recipe)) in enumerate(workers.items()):
            fleets[name] = Fleet(recipe, tmp_path / name, 5000 + number, "--role", role)
            stack.callback(fleets[name].stop)
        urls = {name: fleet.wait().state()["workers"][0]["url"] for name, fleet in fleets.items()}
        gateway = Fleet(
            "tiny-cpu-1p1d",
            tmp_path / "gateway",
            5100,
            *("--role", "gateway"),
            *(f"--{role}={','.join(url for name, url in urls.items() if name.startswith(role))}" for role in shipped),
        )
        stack.callback(gateway.stop)
        gateway.wait()
        # As many as there are decode workers at most: each would have had its turn.
        answers = {complete(http, gateway.url, prompt(300, 1))["choices"][0]["text"] for _ in range(4)}
        assert len(answers) == 1

        admin = gateway.state()["admin_url"]
        vague = ("not tried yet", "identified anew")
        until(lambda: all(pair["why"] not in vague for pair in http.get(f"{admin}/status").json()["pairs"]))
        status = http.get(f"{admin}/status").json()
        at = {worker["url"]: worker["name"] for worker in status["workers"]}
        named = {name: at[url] for name, url in urls.items()}
        why = {(pair["prefill"], pair["decode"]): pair["why"] for pair in status["pairs"]}
        assert why[named["prefill"], named["decode"]] == "canary came through"
        for name in others:
            pair = {"prefill": named["prefill"], "decode": named["decode"], name.split()[0]: named[name]}
            assert why[pair["prefill"], pair["decode"]].startswith(OTHERS[name][1])
        digests = {worker["name"]: worker["engine_digest"] for worker in status["workers"]}
        alike = {digests[named[name]] for name in urls if name in ("prefill", "decode", "decode block")}
        assert len(alike) == 1
        assert digests[named["decode dtype"]] not in alike
        for name, url in urls.items():
            tried = fleets[name].metric(url, "vllm:request_success_total")
            assert (tried > 0) == (name in ("prefill", "decode")), name
            assert fleets[name].metric(url, "vllm:nixl_num_failed_transfers_total") == 0

        # A worker that is asked to drain is out of the pool before its engine is gone, and stays until the KV cache
        # that it computed has been read.
        body = {"model": "tiny-llama", "prompt": prompt(500, 2), "max_tokens": 4, "temperature": 0}
        leg = http.post(f"{urls['prefill']}/v1/completions", json=handoff.prefill_body(body, COMPLETIONS)).json()
        url = httpx.URL(urls["prefill"])
        drained = http.post(f"http://{url.host}:{(url.port or 0) + 200}/drain")
        assert drained.status_code == 202
        until(lambda: "healthy=False why='draining'" in gateway.log())
        computed = fleets["decode"].metric(urls["decode"], "vllm:prompt_tokens_by_source_total", FROM_PREFILL)
        late = http.post(f"{urls['decode']}/v1/completions", json=body | {handoff.PARAMS: leg[handoff.PARAMS]})
        read = fleets["decode"].metric(urls["decode"], "vllm:prompt_tokens_by_source_total", FROM_PREFILL) - computed
        assert (late.status_code, read) == (200, 500)
        assert fleets["prefill"].process.wait(timeout=60) == 0
        assert "event=kv_unread" not in fleets["prefill"].log()
        status = http.get(f"{admin}/status").json()
        assert status["ready"]  # decode answers alone, and the status says so
        assert status["not_as_planned"].startswith("no pair proven: ")
        assert complete(http, gateway.url, prompt(300, 1))["choices"][0]["text"] in answers
        assert gateway.metric(admin, "hyperpd_recomputed_requests_total", {"why": "no_proven_pair"}) == 1
        assert "event=worker worker=prefill-0 healthy=False why='draining'" in gateway.log()
