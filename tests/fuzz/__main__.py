"""One target under atheris, led by coverage of the gateway's code: python -m tests.fuzz TARGET [OPTION OF LIBFUZZER]"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["hyperpd_runtime.gateway", "hyperpd.sse"]):
        from tests.fuzz import targets
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (folder / "seeds").mkdir()
    for number, seed in enumerate(targets.SEEDS.get(name, [])):
        (folder / "seeds" / str(number)).write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f"{_quoted(word)}\n" for word in targets.WORDS))
    atheris.Setup([sys.argv[0], *options, str(folder / "seeds"), f"-dict={words}"], targets.TARGETS[name])
    atheris.Fuzz()


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


main()
