"""The region agent's HTTP API refuses whom and what it does not know, and says why; the client says the same in errors."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from orchestrator.agent.client import HttpAgent
from orchestrator.agent.server import BODY_MAX, CALLS_MAX, application
from orchestrator.core.errors import Denied, Rejected, Transient
from orchestrator.core.health import Counters, InstanceProbe, Synthetic
from orchestrator.ports import Peer

TOKEN = "a-token-for-these-tests"
PEERS = [{"id": "i-1", "address": "10.0.0.1"}]


class OpenFence:
    number = 1

    async def check(self) -> None:
        """The lease is ours."""


class Inside:
    """An agent that remembers what it was asked and fails as told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def _hear(self, *what):
        self.asked.append(what)
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def probe(self, peers):
        await self._hear("probe", peers)
        return [InstanceProbe(peer.id, True, True, False, "v1", 1, 2) for peer in peers]

    async def counters(self, peers):
        await self._hear("counters", peers)
        return {peer.id: Counters(3, 1, (3,) + (0,) * 16) for peer in peers}

    async def synthesize(self, peers, requests, timeout_s):
        await self._hear("synthesize", peers, requests, timeout_s)
        return Synthetic(requests, requests, 0, 1.5, 2.5)

    async def admit(self, peers, *, admitted, fence):
        await self._hear("admit", peers, admitted)


@asynccontextmanager
async def http(inside: Inside, token: str = TOKEN):
    transport = httpx.ASGITransport(application(inside, TOKEN))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://agent", headers=headers) as client:
        yield client


def post(call: str, body: object, inside: Inside | None = None, **more) -> httpx.Response:
    async def posted():
        async with http(inside or Inside()) as client:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await client.post(f"/v1/{call}", content=content, **more)

    return asyncio.run(posted())


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ÿ"])
def test_without_the_token_nothing_is_done_or_said(header):
    inside = Inside()
    response = post("probe", {"peers": PEERS}, inside, headers={"Authorization": header.encode("latin-1")})
    assert (response.status_code, inside.asked) == (401, [])
    assert response.json() == {"error": "a valid bearer token is required"}


def test_healthz_is_open_to_all():
    async def asked():
        async with http(Inside(), token="none") as client:
            return (await client.get("/healthz")).json()

    assert asyncio.run(asked()) == {"ok": True}


@pytest.mark.parametrize(
    ("why", "call", "body"),
    [
        ("not JSON", "probe", b"{"),
        ("not JSON", "probe", b"[" * 100_000),
        ("must be an object with peers", "probe", []),
        ("missing peers", "probe", {}),
        ("unknown port; it has exactly peers", "probe", {"peers": PEERS, "port": 1}),
        ("unknown name; it has exactly id, address", "probe", {"peers": [{**PEERS[0], "name": "x"}]}),
        ("missing address", "probe", {"peers": [{"id": "i-1"}]}),
        ("a peer must be an object", "probe", {"peers": ["10.0.0.1"]}),
        ("peers must be a list", "probe", {"peers": {}}),
        ("at most 1000", "probe", {"peers": PEERS * 1001}),
        ("printable strings", "probe", {"peers": [{"id": "", "address": "10.0.0.1"}]}),
        ("printable strings", "probe", {"peers": [{"id": "i-1\n", "address": "10.0.0.1"}]}),
        ("printable strings", "probe", {"peers": [{"id": 1, "address": "10.0.0.1"}]}),
        ("requests must be", "synthesize", {"peers": PEERS, "requests": -1, "timeout_s": 1}),
        ("requests must be", "synthesize", {"peers": PEERS, "requests": True, "timeout_s": 1}),
        ("requests must be", "synthesize", {"peers": PEERS, "requests": 10**9, "timeout_s": 1}),
        ("timeout_s must be", "synthesize", {"peers": PEERS, "requests": 1, "timeout_s": 0}),
        ("timeout_s must be", "synthesize", b'{"peers": [], "requests": 1, "timeout_s": NaN}'),
        ("missing requests, timeout_s", "synthesize", {"peers": PEERS}),
        ("admitted must be true or false", "admit", {"peers": PEERS, "admitted": 0}),
    ],
)
def test_a_wrong_body_is_refused_with_what_is_wrong_and_nobody_is_asked(why, call, body):
    inside = Inside()
    response = post(call, body, inside)
    assert (response.status_code, inside.asked) == (400, [])
    assert why in response.json()["error"]


def test_a_body_beyond_the_bound_is_refused():
    assert post("probe", b" " * (BODY_MAX + 1)).status_code == 413


def test_an_unknown_call_names_those_there_are():
    response = post("exec", {})
    assert (response.status_code, response.json()["error"]) == (
        404,
        "no call 'exec'; there are probe, counters, synthesize, admit",
    )


def test_calls_beyond_the_bound_are_told_to_come_back():
    async def asked():
        inside = Inside()
        inside.gate.clear()
        async with http(inside) as client:
            calls = [asyncio.create_task(client.post("/v1/probe", json={"peers": PEERS})) for _ in range(CALLS_MAX)]
            while len(inside.asked) < CALLS_MAX:
                await asyncio.wait(calls, timeout=0.01)
            late = await client.post("/v1/probe", json={"peers": PEERS})
            inside.gate.set()
            assert {(await call).status_code for call in calls} == {200}
            assert (late.status_code, late.headers["retry-after"]) == (429, "1")
            assert (await client.post("/v1/probe", json={"peers": PEERS})).status_code == 200

    asyncio.run(asyncio.wait_for(asked(), 20))


def test_no_token_is_ever_logged(caplog):
    post("probe", {"peers": PEERS})
    post("probe", {})
    post("probe", {"peers": PEERS}, headers={"Authorization": "Bearer other-secret-token"})
    assert "a valid bearer token is required" in caplog.text
    assert TOKEN not in caplog.text
    assert "other-secret-token" not in caplog.text


def through_the_client(inside: Inside, what, token: str = TOKEN):
    """Ask over a real HTTP client whose transport is the application."""

    async def asked():
        agent = HttpAgent("http://127.0.0.1:1", token, transport=httpx.ASGITransport(application(inside, TOKEN)))
        try:
            return await what(agent)
        finally:
            await agent.aclose()

    return asyncio.run(asked())


PEER = Peer("i-1", "10.0.0.1")


def test_what_the_client_is_asked_and_told_is_what_the_agent_is():
    async def everything(agent):
        return (
            await agent.probe([PEER]),
            await agent.counters([PEER]),
            await agent.synthesize([PEER], 5, 2.0),
            await agent.admit([PEER], admitted=True, fence=OpenFence()),
        )

    inside = Inside()
    assert through_the_client(inside, everything) == (
        [InstanceProbe("i-1", True, True, False, "v1", 1, 2)],
        {"i-1": Counters(3, 1, (3,) + (0,) * 16)},
        Synthetic(5, 5, 0, 1.5, 2.5),
        None,
    )
    assert inside.asked == [
        ("probe", [PEER]),
        ("counters", [PEER]),
        ("synthesize", [PEER], 5, 2.0),
        ("admit", [PEER], True),
    ]


@pytest.mark.parametrize(
    "error", [Transient("i-1 is silent"), Denied("i-1 is elsewhere"), Rejected("i-1 is no address")]
)
def test_the_agents_error_arrives_as_itself_with_its_words(error):
    with pytest.raises(type(error), match=str(error)):
        through_the_client(Inside(error), lambda agent: agent.probe([PEER]))


def test_a_wrong_token_is_denied_for_a_person_to_mend():
    with pytest.raises(Denied, match="bearer token"):
        through_the_client(Inside(), lambda agent: agent.probe([PEER]), token="wrong")


def test_an_agent_that_is_not_there_is_worth_another_try():
    async def asked():
        agent = HttpAgent("http://127.0.0.1:1", TOKEN)
        try:
            await agent.probe([PEER])
        finally:
            await agent.aclose()

    with pytest.raises(Transient, match=r"127\.0\.0\.1:1 did not answer probe"):
        asyncio.run(asked())


@pytest.mark.parametrize("answer", [(502, b"<html>bad gateway</html>"), (200, b"hello"), (200, b"{}"), (200, b"[]")])
def test_an_answer_that_is_not_the_agents_is_worth_another_try(answer):
    status, body = answer
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))

    async def asked():
        await HttpAgent("http://127.0.0.1:1", TOKEN, transport=transport).probe([PEER])

    with pytest.raises(Transient):
        asyncio.run(asked())


def test_the_token_does_not_travel_in_the_clear_over_a_public_network():
    with pytest.raises(Rejected, match="https"):
        HttpAgent("http://agent.example.com", TOKEN)
    HttpAgent("https://agent.example.com", TOKEN)
