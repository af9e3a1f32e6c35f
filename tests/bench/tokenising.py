"""What it costs to learn a prompt's blocks, each way, for 1k, 8k and 32k tokens. Not run by CI.

    PYTHONPATH=sdk:container:. python tests/bench/tokenising.py [--engine URL] [--tokenizer FOLDER] [--block 128]

The texts are Python's own library, 4 bytes to a token; the tokenizer is trained on it (byte-level BPE of 16,384, into
FOLDER, from which an engine can be started: `vllm serve MODEL --tokenizer FOLDER --enable-scale-out`), since none
is at hand. Every figure is a median, each time of another text: tokenizers remember words, and engines whole prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from hyperpd.routing.blocks import chain
from hyperpd_runtime.gateway.apis import CHAT, COMPLETIONS
from hyperpd_runtime.gateway.guard import PLAIN, Admitted
from hyperpd_runtime.gateway.prompts import Approximate

SIZES = (1_024, 8_192, 32_768)
TOKEN_BYTES = 4
TURN_BYTES = 1_024  # of one message of a conversation
VOCABULARY = 16_384
REPEATS = 30
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def corpus() -> str:
    """ASCII, so that bytes are characters."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return "\n".join(file.read_text(errors="replace") for file in files).encode("ascii", "replace").decode()


def trained(text: str, folder: Path) -> Any:
    """A tokenizer of this text, or None where the package is not installed."""
    try:
        import tokenizers
    except ImportError:
        return None
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(text.splitlines(keepends=True), vocab_size=VOCABULARY, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return made


async def median_us(do: Callable[[Any], Awaitable[object]], prompts: list[Any]) -> float:
    await do(prompts[0])
    taken_s = []
    for prompt in prompts[1:]:
        began_s = time.perf_counter()
        await do(prompt)
        taken_s.append(time.perf_counter() - began_s)
    return statistics.median(taken_s) * 1e6


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--engine", metavar="URL", help="an engine to ask; without it, no row of it")
    parser.add_argument("--tokenizer", metavar="FOLDER", type=Path, default=Path(tempfile.gettempdir()) / "tokenising")
    parser.add_argument("--block", metavar="TOKENS", type=int, default=128)
    args = parser.parse_args()
    text = corpus()
    tokenizer = trained(text, args.tokenizer)
    approximate = Approximate(args.block)
    draw = random.Random(0)

    async def of_text(prompt: str) -> None:
        await approximate.request(Admitted({"prompt": prompt}, COMPLETIONS, PLAIN))

    async def of_turns(body: dict[str, Any]) -> None:
        await approximate.request(Admitted(body, CHAT, PLAIN))

    async def of_ids(ids: list[int]) -> None:
        chain(ids, args.block)

    async def in_process(prompt: str) -> None:
        chain(tokenizer.encode(prompt).ids, args.block)

    async def asked(path: str, body: dict[str, Any], answer: Callable[[Any], list[int]]) -> None:
        async with session.post(args.engine + path, json=body) as response:
            told = json.loads(await response.read())
            assert response.status == 200, told
        chain(answer(told), args.block)

    async def tokenized(prompt: str) -> None:
        await asked("/tokenize", {"prompt": prompt}, lambda told: told["tokens"])

    async def rendered(prompt: str) -> None:
        body = {"prompt": prompt, "max_tokens": 1}
        await asked("/v1/completions/render", body, lambda told: told[0]["token_ids"])

    async def rendered_turns(body: dict[str, Any]) -> None:
        await asked("/v1/chat/completions/render", body, lambda told: told["token_ids"])

    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, blocks of {args.block}")
    if not tokenizer:
        print("tokenizers: not installed, so not measured")
    ways: dict[str, Callable[[Any], Awaitable[object]]] = {
        "Approximate, one text": of_text,
        f"Approximate, messages of {TURN_BYTES}": of_turns,
        "token ids, chain": of_ids,
        **({"tokenizers in process, chain": in_process} if tokenizer else {}),
        **({"engine: /tokenize": tokenized, "engine: render, one text": rendered} if args.engine else {}),
        **({"engine: render, messages": rendered_turns} if args.engine else {}),
    }
    table: dict[str, list[float]] = {name: [] for name in ways}
    # Engines close what is idle for 5 s, and the rows between theirs take longer.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(keepalive_timeout=2)) as session:
        for size in SIZES:
            starts = [draw.randrange(len(text) - size * TOKEN_BYTES) for _ in range(REPEATS + 1)]
            texts = [text[start : start + size * TOKEN_BYTES] for start in starts]
            turns = [conversation(text) for text in texts]
            ids = [[draw.randrange(VOCABULARY) for _ in range(size)] for _ in texts]
            for name, do in ways.items():
                prompts = ids if do is of_ids else turns if do in (of_turns, rendered_turns) else texts
                table[name].append(await median_us(do, prompts))
    print(f"{'µs, and times the first row':36}" + "".join(f"{size:>10,} tokens  " for size in SIZES))
    base = table["Approximate, one text"]
    for name, row in table.items():
        cells = [f"{us:10,.0f} {us / first:6.1f}x" for us, first in zip(row, base, strict=True)]
        print(f"{name:36}" + " ".join(cells))


def conversation(text: str) -> dict[str, Any]:
    starts = range(0, len(text), TURN_BYTES)
    roles = ("user", "assistant")
    said = [{"role": roles[n % 2], "content": text[at : at + TURN_BYTES]} for n, at in enumerate(starts)]
    return {"messages": said, "max_tokens": 1}


if __name__ == "__main__":
    asyncio.run(main())
