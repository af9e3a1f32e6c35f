"""hyperpd invoke: one request."""

from __future__ import annotations

from pathlib import Path

import click

from hyperpd.cli import output
from hyperpd.cli.fleet import fleets
from hyperpd.errors import RecipeError


@click.command()
@click.argument("prompt")
@click.option("--url", help="The gateway; default: the fleet that runs here, else http://127.0.0.1:8080.")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False), help="File with the API key.")
@click.option("--chat", is_flag=True, help="Send the prompt as a chat message.")
@click.option("--stream", is_flag=True, help="Print the text as it comes.")
@click.option("--max-tokens", default=32, show_default=True, type=click.IntRange(1))
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(0, 2))
@click.option("--json", "as_json", is_flag=True, help="The whole answer as JSON.")
def invoke(
    prompt: str,
    url: str | None,
    key_file: str | None,
    chat: bool,
    stream: bool,
    max_tokens: int,
    temperature: float,
    as_json: bool,
) -> None:
    """Send PROMPT and print the answer."""
    from hyperpd.client import Client

    if stream and as_json:
        raise click.UsageError("--stream prints text as it comes; --json prints the whole answer: give one of them")
    messages = [{"role": "user", "content": prompt}]
    key = Path(key_file).read_text().strip() if key_file else None
    with Client(url or _running(), api_key=key) as client:
        if stream:
            options = {"max_tokens": max_tokens, "temperature": temperature}
            for text in client.stream_chat(messages, **options) if chat else client.stream(prompt, **options):
                output.piece(text)
            output.line()
            return
        send = {"max_tokens": max_tokens, "temperature": temperature}
        answer = client.chat(messages, **send) if chat else client.complete(prompt, **send)
        if as_json:
            output.document(answer)
            return
        choice = answer["choices"][0]
        output.line(choice["message"]["content"] if chat else choice["text"])


def _running() -> str:
    """The URL of the fleet of this machine. Raises RecipeError when there are several and none has the usual port."""
    usual = "http://127.0.0.1:8080"
    urls = [str(fleet.state()["url"]) for fleet in fleets() if fleet.running()]
    if len(urls) > 1 and usual not in urls:
        raise RecipeError("hyperpd invoke", [f"several fleets run; give one --url: {', '.join(urls)}"])
    return urls[0] if len(urls) == 1 else usual
