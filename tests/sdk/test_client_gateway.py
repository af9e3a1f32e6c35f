"""The client over a gateway's URL: how long it waits, what it sends again, and what leaving does upstream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from hyperpd import errors
from hyperpd.client import AsyncClient, Client, Gateway, Retries, Retry, Timeouts
from hyperpd.sse import encode
from tests.container.stack import Stack, running, tiny, until

QUICK = Retries(first_pause_s=0.0)
CHUNK = encode('{"choices": [{"text": "a"}]}')
BODY = {"error": {"message": "why", "request_id": "r1"}}


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as stack:
        yield stack


class Server:
    """Answers that were prepared, in order; an exception is raised in place of one."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, retries: Retries = QUICK, **given: Any) -> AsyncClient:
        way = Gateway("http://gateway", transport=httpx.MockTransport(self))
        return AsyncClient(way, model="m", retries=retries, **given)


def answer(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=BODY, headers={name.replace("_", "-"): value for name, value in headers.items()})


GOOD = {"choices": [{"text": "good"}]}


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ConnectTimeout("late"), True),
        (answer(503, retry_after="0"), True),
        (answer(429, retry_after="0"), True),
        (answer(503), True),
        (answer(500), True),
        (answer(502), True),
        (httpx.ReadError("reset"), False),
        (httpx.RemoteProtocolError("cut"), False),
        (answer(429), False),
        (answer(429, retry_after="31"), False),
        (answer(503, retry_after="31"), False),
        (answer(504), False),
        (answer(400), False),
        (answer(404), False),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_sent_again(first: httpx.Response | Exception, again: bool, streamed: bool) -> None:
    if isinstance(first, httpx.Response):
        first = httpx.Response(first.status_code, headers=first.headers, content=first.content)
    good = httpx.Response(200, content=CHUNK + encode("[DONE]")) if streamed else httpx.Response(200, json=GOOD)
    server = Server(first, good)
    told: list[Retry] = []
    async with server.client(on_retry=told.append) as client:
        with contextlib.nullcontext() if again else pytest.raises(errors.RequestError):
            if streamed:
                assert [text async for text in client.stream("x")] == ["a"]
            else:
                assert await client.complete("x") == GOOD
    assert (len(server.asked), client.retried, len(told)) == ((2, 1, 1) if again else (1, 0, 0))


async def test_attempts_are_counted_and_the_last_error_is_told() -> None:
    server = Server(*(answer(503) for _ in range(4)))
    async with server.client(Retries(attempts=4, first_pause_s=0.0)) as client:
        with pytest.raises(errors.NoWorkerAvailable, match=r"why \(request r1\)\ntry: hyperpd status") as caught:
            await client.complete("x")
    assert (caught.value.request_id, client.retried, len(server.asked)) == ("r1", 3, 4)
    assert len({request.headers["x-request-id"] for request in server.asked}) == 1


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("127.0.0.1", "is it running? try: hyperpd status"),
        (
            "gateway.hyperpd.svc.cluster.local",
            "only its cluster knows this name; from elsewhere: kubectl --namespace hyperpd port-forward"
            " service/gateway 8080, and http://127.0.0.1:8080",
        ),
    ],
)
async def test_what_cannot_be_reached(host: str, hint: str) -> None:
    where, transport = f"http://{host}:8080", httpx.MockTransport(Server(httpx.ConnectError("nobody")))
    async with AsyncClient(Gateway(where, transport=transport), model="m", retries=Retries(attempts=1)) as client:
        with pytest.raises(errors.RequestError) as caught:
            await client.complete("x")
    assert str(caught.value).startswith(f"{where}: nobody; {hint}")


def test_pauses_grow_and_retry_after_wins() -> None:
    retries = Retries(attempts=9, first_pause_s=1.0, longest_pause_s=8)
    failed = errors.RequestError("x", status=500)
    for attempt, longest_s in enumerate([1, 2, 4, 8, 8], start=1):
        pauses = [retries.pause_s(attempt, failed, True) for _ in range(50)]
        assert all(pause is not None and longest_s / 2 <= pause <= longest_s for pause in pauses)
    assert retries.pause_s(3, errors.Overloaded("x", retry_after_s=7), True) == 7
    assert retries.pause_s(9, failed, True) is None


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (b"", "stream_cut"),
        (encode('{"error": {"message": "no", "code": "stream_cut"}}'), "stream_cut"),
        (
            b'data: {"choices": [{"text": "\xc3\n\n' + encode('{"error": {"message": "no", "code": "stream_cut"}}'),
            "stream_cut",
        ),
        (encode('{"error": {"message": "no", "code": "handoff_failed"}}'), "handoff_failed"),
        (encode("no JSON") + CHUNK, "not_openai"),
    ],
)
async def test_a_request_whose_tokens_flow_is_never_repeated(rest: bytes, code: str) -> None:
    server = Server(httpx.Response(200, content=CHUNK + rest))
    seen = []
    async with server.client() as client:
        pieces = client.stream("secret")
        seen.append(await anext(pieces))
        with pytest.raises(errors.RequestError) as caught:
            await anext(pieces)
    assert (seen, caught.value.code, len(server.asked)) == (["a"], code, 1)
    assert "secret" not in str(caught.value)


class Held:
    """A server on a socket: says what it is told to, and then nothing; `left` when the client hangs up."""

    def __init__(self, begun: bytes) -> None:
        self.begun = begun
        self.left = threading.Event()
        self.asked = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            data = b""
            while not data.endswith(b"}"):
                data += connection.recv(65536)
            self.asked += 1
            connection.sendall(self.begun)
            while connection.recv(65536):
                """It says nothing more."""
        self.left.set()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listening.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("begun", "timeouts", "name"),
    [
        (b"", Timeouts(first_token_s=0.2), "first_token_s"),
        (HEAD, Timeouts(first_token_s=0.2), "first_token_s"),
        (HEAD + b": keep-alive\n\n", Timeouts(first_token_s=0.2), "first_token_s"),
        (HEAD + CHUNK, Timeouts(idle_s=0.2), "idle_s"),
        (HEAD + CHUNK, Timeouts(total_s=0.5), "total_s"),
        (b"", Timeouts(total_s=0.2), "total_s"),
    ],
)
async def test_what_takes_too_long_is_ended_upstream(begun: bytes, timeouts: Timeouts, name: str) -> None:
    with Held(begun) as held:
        async with AsyncClient(held.url, model="m", timeouts=timeouts) as client:
            with pytest.raises(errors.RequestError, match=f"longer than {name}") as caught:
                await read(client.stream("x"))
            assert await asyncio.to_thread(held.left.wait, 30)
    assert (caught.value.status, caught.value.code, held.asked, client.retried) == (504, "timeout", 1, 0)


@pytest.mark.parametrize("timeouts", [Timeouts(idle_s=0.2), Timeouts(total_s=0.2)])
async def test_a_whole_answer_that_takes_too_long(timeouts: Timeouts) -> None:
    with Held(b"") as held:
        async with AsyncClient(held.url, model="m", timeouts=timeouts) as client:
            with pytest.raises(errors.RequestError, match="longer than") as caught:
                await client.complete("x")
            assert await asyncio.to_thread(held.left.wait, 30)
    assert caught.value.code == "timeout"


async def test_retries_and_their_pauses_are_part_of_the_total() -> None:
    server = Server(answer(503, retry_after="30"), httpx.Response(200, json=GOOD))
    async with server.client(timeouts=Timeouts(total_s=0.2)) as client:
        with pytest.raises(errors.RequestError, match="longer than total_s"):
            await client.complete("x")
    assert len(server.asked) == 1


async def read(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


async def test_leaving_ends_the_request_upstream(stack: Stack) -> None:
    stack.decode.fault = "slow"
    async with AsyncClient(str(stack.http.base_url)) as client:
        async with contextlib.aclosing(client.stream("hello")) as pieces:
            assert await anext(pieces)
            assert not stack.decode.aborted.is_set()
        await asyncio.wait_for(stack.decode.aborted.wait(), 30)


def _break(client: Client) -> None:
    for _ in client.stream("hello"):
        break


def _close(client: Client) -> None:
    pieces = client.stream("hello")
    next(pieces)
    pieces.close()


def _forget(client: Client) -> None:
    assert next(client.stream("hello"))


@pytest.mark.parametrize("leave", [_break, _close, _forget])
async def test_leaving_without_awaiting(
    stack: Stack, leave: Callable[[Client], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.decode.fault = "slow"
    stream, kept = AsyncClient.stream, []  # kept, or losing the last reference would close it, too

    def keeping(client: AsyncClient, *prompt: Any) -> Any:
        kept.append(stream(client, *prompt))
        return kept[-1]

    monkeypatch.setattr(AsyncClient, "stream", keeping)
    with Client(str(stack.http.base_url)) as client:
        await asyncio.to_thread(leave, client)
        await asyncio.wait_for(stack.decode.aborted.wait(), 30)


async def test_closing_ends_what_runs(stack: Stack) -> None:
    stack.decode.fault = "hang"
    client = Client(str(stack.http.base_url))
    asking = asyncio.ensure_future(asyncio.to_thread(client.complete, "hello"))
    await until(stack.decode.arrived.is_set)
    await asyncio.to_thread(client.close)
    with pytest.raises(errors.RequestError, match="was closed"):
        await asking
    await asyncio.wait_for(stack.decode.aborted.wait(), 30)
    with pytest.raises(RuntimeError, match="closed"):
        client.complete("hello")


async def test_a_stream_read_to_its_end_keeps_its_connection() -> None:
    connections, closed = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"}"):
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for event in (CHUNK, encode("[DONE]")):
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()  # the end comes by itself
                await asyncio.sleep(0)
                writer.write(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        closed.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(f"http://127.0.0.1:{port}", model="m") as client:
            assert [await read(client.stream("x")) for _ in range(3)] == ["a"] * 3
        await closed.wait()
    assert connections == 1


@pytest.mark.parametrize("options", [{"n": 2}, {"prompt": ["a", "b"]}])
async def test_a_stream_of_several_texts_is_refused(options: dict[str, Any]) -> None:
    server = Server()
    async with server.client() as client:
        with pytest.raises(errors.Rejected, match="complete takes several"):
            await anext(client.stream(**{"prompt": "x", **options}))
    assert server.asked == []


async def test_one_prompt_may_be_tokens() -> None:
    server = Server(httpx.Response(200, content=CHUNK + encode("[DONE]")))
    async with server.client() as client:
        assert await read(client.stream([1, 2, 3])) == "a"


async def test_as_openai(stack: Stack) -> None:
    def ask(url: str) -> tuple[str, str]:
        with Client(url) as client, client.as_openai() as theirs:
            whole = theirs.completions.create(model="tiny-llama", prompt="hello", max_tokens=4)
            stream = theirs.chat.completions.create(
                model="tiny-llama", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            return whole.choices[0].text, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    text, chat = await asyncio.to_thread(ask, str(stack.http.base_url))
    async with AsyncClient(str(stack.http.base_url), timeouts=Timeouts(connect_s=3, idle_s=4)) as client:
        assert text == "after hello"
        assert chat == await read(client.stream_chat([{"role": "user", "content": "hello"}]))
        async with client.as_openai() as theirs:
            assert [model.id async for model in theirs.models.list()] == await client.models()
            assert (theirs.max_retries, theirs.timeout.connect, theirs.timeout.read) == (0, 3, 4)


def test_as_openai_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with Client() as client, pytest.raises(errors.NotReady, match="pip install openai"):
        client.as_openai()


async def test_the_request_is_in_the_gateways_log_by_the_clients_id(stack: Stack) -> None:
    async with AsyncClient(str(stack.http.base_url)) as client:
        with pytest.raises(errors.Rejected) as caught:
            await client.complete("hello", no_such=1)
    assert caught.value.request_id
    assert json.loads(json.dumps(caught.value.body()))["error"]["request_id"] == caught.value.request_id
