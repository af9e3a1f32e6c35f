"""hyperpd invoke: one request, to a gateway or a SageMaker endpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd.cli import output
from hyperpd.cli.fleet import USUAL_URL, fleets
from hyperpd.errors import RecipeError

if TYPE_CHECKING:
    from hyperpd.client import Retry

_NO_TEXT = "no text: it was still reasoning, or calls a tool; more --max-tokens, or --json shows all"


@click.command()
@click.argument("prompt")
@click.option("--url", help="The gateway; default: the fleet that runs here, else http://127.0.0.1:8080.")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False), help="File with the gateway's API key.")
@click.option("--endpoint", metavar="NAME", help="A SageMaker endpoint in place of a gateway.")
@click.option("--region", help="The endpoint's Region; default: AWS's own settings.")
@click.option("--session", metavar="ID", help="SageMaker's session id, for a container that keeps sessions.")
@click.option("--chat", is_flag=True, help="Send the prompt as a chat message.")
@click.option("--stream", is_flag=True, help="Print the text as it comes.")
@click.option(
    "--max-tokens", default=32, show_default=True, type=click.IntRange(1), help="Tokens of the answer at most."
)
@click.option(
    "--temperature", default=0.0, show_default=True, type=click.FloatRange(0, 2), help="0: the likeliest token, always."
)
@click.option("--json", "as_json", is_flag=True, help="The whole answer as JSON.")
def invoke(
    prompt: str,
    url: str | None,
    key_file: str | None,
    endpoint: str | None,
    region: str | None,
    session: str | None,
    chat: bool,
    stream: bool,
    max_tokens: int,
    temperature: float,
    as_json: bool,
) -> None:
    """Send PROMPT and print the answer. PROMPT - is what standard input says."""
    given = {"--url": url, "--key-file": key_file, "--region": region, "--session": session}
    if problems := list(_problems({name for name, value in given.items() if value}, endpoint, stream and as_json)):
        raise click.UsageError("\n".join(problems))
    from hyperpd import api_key
    from hyperpd.client import Client, Endpoint

    text = sys.stdin.read() if prompt == "-" else prompt
    if not text:
        raise click.UsageError("the prompt is empty")
    key = api_key.read(Path(key_file)) if key_file else None
    to = Endpoint(endpoint, region=region, session_id=session) if endpoint else url or _running()
    messages = [{"role": "user", "content": text}]
    options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature}
    with Client(to, api_key=key, on_retry=_again) as client:
        if stream:
            said = False
            try:
                for piece in client.stream_chat(messages, **options) if chat else client.stream(text, **options):
                    said = True
                    output.piece(piece)
            finally:
                output.line()  # also before what went wrong
            if chat and not said:
                output.note(_NO_TEXT)
            return
        answer = client.chat(messages, **options) if chat else client.complete(text, **options)
        if as_json:
            output.document(answer)
            return
        found = _text(answer, chat, to if isinstance(to, str) else to.where)
        if found is None:
            output.note(_NO_TEXT)
        else:
            output.line(found)


def _problems(given: set[str], endpoint: str | None, both: bool) -> Iterator[str]:
    """What does not go together. given: the options of one way in that are there."""
    if both:
        yield "--stream prints text as it comes; --json prints the whole answer: give one of them"
    if endpoint and "--url" in given:
        yield "--url is a gateway, --endpoint SageMaker's: give one of them"
    if endpoint and "--key-file" in given:
        yield "--key-file is a gateway's; --endpoint signs with AWS credentials"
    if not endpoint and (alone := sorted(given & {"--region", "--session"})):
        yield f"{' and '.join(alone)}: for an --endpoint NAME; a gateway has none"


def _text(answer: dict[str, Any], chat: bool, where: str) -> str | None:
    """The answer's text; None where a chat's message has none. Raises RequestError."""
    from hyperpd.client import answers

    try:
        choice = answer["choices"][0]
        text: str | None = choice["message"].get("content") if chat else choice["text"]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise answers.not_openai(where, "an answer without text in choices; --json shows all of it") from None
    return text


def _again(retry: Retry) -> None:
    what = str(retry.error).partition("\n")[0]
    output.note(f"{what}; again in {retry.pause_s:.1f} s")


def _running() -> str:
    """The URL of the fleet of this machine. Raises RecipeError when there are several and none has the usual port."""
    urls = [str(fleet.state()["url"]) for fleet in fleets() if fleet.running()]
    if len(urls) > 1 and USUAL_URL not in urls:
        raise RecipeError("hyperpd invoke", [f"several fleets run; give one --url: {', '.join(urls)}"])
    return urls[0] if len(urls) == 1 else USUAL_URL
