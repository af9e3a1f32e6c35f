"""A decode worker of two ranks on two nodes, beside a prefill worker on the first: one step with a task on each."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.real.prompts import LENGTHS, complete, prompt
from tests.slurm.cluster import Slurm
from tests.slurm.jobs import Job, rendered

pytestmark = pytest.mark.nightly
_ENGINE = "{enforce-eager: true, kv-cache-memory-bytes: 134217728, max-num-seqs: 32}"
WIDE = f"""version: 1
name: wide
accelerator: cpu
model: {{generated: tiny-llama, max_len_tokens: 2048, dtype: float32}}
prefill: {{engine: {_ENGINE}}}
decode: {{parallel: {{data: 2, nodes: 2}}, engine: {_ENGINE}}}
drain_s: 5
"""


def test_ranks_of_a_worker_on_two_nodes(cluster: Slurm, tmp_path: Path) -> None:
    job = Job(cluster, rendered(WIDE, tmp_path, "prefill_partition=first"))
    try:
        print(f"\nsbatch to ready {job.wait():.1f} s")
        assert cluster.show(job.id, 1)["NodeList"] == "node-[1-2]"
        assert job.workers().keys() == {"prefill-0", "decode-0"}  # the second rank has no API of its own
        with httpx.Client(timeout=120) as http:
            for seed, length in enumerate(LENGTHS):
                assert complete(http, job.url, prompt(length, seed))["choices"][0]["text"]
            metrics = http.get(f"{job.workers()['decode-0']}/metrics").text
        tokens = dict(re.findall(r'by_source_total\{engine="(\d)",.*source="external_kv_transfer"} (\S+)', metrics))
        print(f"tokens of KV read by rank: {tokens}")
        assert [float(tokens[rank]) > 0 for rank in ("0", "1")] == [True, True]
        cluster.run("scancel", "--batch", "--signal=TERM", job.id)
        assert cluster.ended(job.id, 180) == "COMPLETED", job.log
    finally:
        job.end()
    assert job.leftovers() == []
