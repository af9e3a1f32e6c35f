"""hyperpd explain: why a request was served by the workers it was served by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd.cli import completion, output
from hyperpd.cli.fleet import fleets
from hyperpd.errors import RecipeError, Rejected, RequestError

if TYPE_CHECKING:
    from hyperpd.cli.documents.routing import Candidate, Decision, Explained

_TIMEOUT_S = 10
_UNKNOWN = "request_unknown"
_WITHOUT_COSTS = {
    "remote": "the decider sends prompts like this one to a prefill worker",
    "aggregated": "there is no prefill role",
    "rule": "the decider never asks for a remote prefill",
    "no_prefill_worker": "no prefill worker might be picked",
    "pair_open": "no prefill worker had a proven way to the one that decodes",
    "shape_guard": "what it asks for cannot be handed over; the gateway's log says why",
    "forced": "an operator asked for it by x-hyperpd-mode",
    "decode_failed": "the worker that was to decode it failed, and this one computes it again",
}


@click.command()
@click.argument("request_id")
@click.option(
    "--fleet", metavar="NAME", shell_complete=completion.fleet, help="A fleet on this machine; default: each that runs."
)
@click.option(
    "--url", "urls", multiple=True, help="A gateway's admin port, as in http://127.0.0.1:8081; repeat it for several."
)
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False), help="File with an operator's API key.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def explain(request_id: str, fleet: str | None, urls: tuple[str, ...], key_file: str | None, as_json: bool) -> None:
    """Show which workers could have served a request, and why it went where it went.

    REQUEST_ID: of the answer's header x-hyperpd-request-id, or of the gateway's log. Several gateways are asked one
    after the other, since each knows its own requests alone.
    """
    if fleet and urls:
        raise click.UsageError("--fleet and --url both name gateways; give one of them")
    from hyperpd import api_key

    key = api_key.read(Path(key_file)) if key_file else None
    found = _asked(request_id, urls or _admins(fleet), key)
    if as_json:
        output.document(found)
        return
    for number, decision in enumerate(found["decisions"]):
        output.line(f"{'' if not number else chr(10)}{_title(found, number)}")
        output.table(("role", "worker", "cached", "score", ""), list(_rows(decision)))
        output.line(_why(decision, found["ttft_objective_ms"]))
    if found["decisions_left_out"]:
        output.line(f"and {found['decisions_left_out']} more decisions for this request, which are not kept")


def _admins(fleet: str | None) -> list[str]:
    """The admin ports of a fleet of this machine, or of all that run. Raises RecipeError where there is none."""
    running = {one.name: one for one in fleets() if one.running()}
    if fleet and fleet not in running:
        what = f"no fleet of this name runs on this machine; there run {', '.join(running) or 'none'}"
        raise RecipeError(fleet, [f"{what}. For other gateways give --url"])
    if not running:
        raise RecipeError("hyperpd explain", ["no fleet runs on this machine; give --url, a gateway's admin port"])
    return [str(running[name].state()["admin_url"]) for name in ([fleet] if fleet else running)]


def _asked(request_id: str, urls: tuple[str, ...] | list[str], key: str | None) -> Explained:
    """What the first gateway says that knows the request. Raises RequestError where none does, with all they said."""
    from urllib.parse import quote

    import httpx

    from hyperpd.client import answers

    failed: list[RequestError] = []
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(headers=headers, timeout=_TIMEOUT_S) as http:
        for url in urls:
            where = f"{url.rstrip('/')}/explain/{quote(request_id, safe='')}"
            try:
                answer = http.get(where)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failed.append(_stranger(url, str(error) or type(error).__name__, "unreachable"))
                continue
            if answer.status_code == 200:
                found = _explanation(answer.content)
                if found:
                    return found
                failed.append(_stranger(url, "answers with no explanation", "not_a_gateway"))
                continue
            step = "--key-file with an operator's key" if answer.status_code in (401, 403) else ""
            said = answers.error(answer.status_code, answer.headers, answer.content, step)
            failed.append(type(said)(f"{url}: {said}", status=said.status, code=said.code))
    if len(failed) == 1:
        raise failed[0]
    lines = "\n".join(f"  - {error}" for error in failed)
    kind = Rejected if all(error.code == _UNKNOWN for error in failed) else RequestError
    raise kind(f"no gateway of {len(failed)} explains {request_id}:\n{lines}", status=404, code=_UNKNOWN)


def _explanation(content: bytes) -> Explained | None:
    """An answer's document; None where it is another than a gateway's."""
    import json

    try:
        found: Any = json.loads(content)
    except ValueError:  # also bytes that are not text
        return None
    return found if isinstance(found, dict) and isinstance(found.get("decisions"), list) else None  # type: ignore[return-value]


def _stranger(url: str, what: str, code: str) -> RequestError:
    return RequestError(f"{url}: {what}; is it a gateway's admin port, as hyperpd up shows?", code=code)


def _title(found: Explained, number: int) -> str:
    decision, many = found["decisions"][number], len(found["decisions"])
    which = f", decision {number + 1} of {many}" if many > 1 else ""
    mode = f"served {found['mode']}" if found["mode"] else "not yet served"
    return f"{found['request_id']}{which}: {decision['prompt_tokens']:,} prompt tokens, {decision['at']}, {mode}"


def _rows(decision: Decision) -> Iterator[tuple[str, ...]]:
    for role, candidates in (("decode", decision["decode_candidates"]), ("prefill", decision["prefill_candidates"])):
        leg = decision["decode"] if role == "decode" else decision["prefill"]
        for one in candidates:
            yield role, one["worker"], *_cells(one, leg is not None and leg["worker"] == one["worker"])


def _cells(one: Candidate, picked: bool) -> tuple[str, str, str]:
    if one["why_not"] is not None:
        return "-", "-", one["why_not"]
    score = "-" if one["score"] is None else f"{one['score']:.3f}"
    return f"{one['cached_tokens']:,}", score, "picked" if picked else ""


def _why(decision: Decision, objective_ms: float) -> str:
    """One sentence, and what its numbers mean."""
    prefill, decode = decision["prefill"], decision["decode"]
    path = f"remote, {prefill['worker']} prefills" if prefill else f"local, {decode['worker']} prefills itself"
    local, remote = decision["local_cost"], decision["remote_cost"]
    if local is None:
        reason = decision["reason"]
        if reason == "below_threshold":
            why = f"{decode['uncached_tokens']:,} tokens to compute are fewer than gateway.threshold_tokens"
        else:
            why = _WITHOUT_COSTS.get(reason, reason)
        return f"{path}: {why}"
    elsewhere = "no known cost" if remote is None else f"{remote:.3f}"
    return (
        f"{path}: predicted cost {local:.3f} local, {elsewhere} remote\n"
        f"A cost of 0.1 is a first token after a tenth of the objective, {objective_ms:,.0f} ms; it grows steeply from"
        " 0.7 on, and is 2 at the objective. Both include what a prefill takes from those to come, up to 3 for a usual"
        " one as far as requests wait for prefills of late; local also what it takes from answers that run there."
    )
