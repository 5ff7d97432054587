"""Instances that lie, hang or talk nonsense: the agent reports what it knows, never more (I2)."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from ipaddress import IPv4Network

import pytest

from orchestrator.agent.local import LocalAgent, quantile
from orchestrator.core.errors import Denied, Rejected, Transient
from orchestrator.core.health import InstanceProbe
from orchestrator.ports import Peer

SOURCE, ADDRESS, PORT = "127.81.0.5", "127.81.1.10", 18080
PEER = Peer("i-1", ADDRESS)
DARK = InstanceProbe("i-1", False, False, False, None, 0, 0)
COUNTS = {"in_flight": 2, "connections": 3, "requests": 7, "errors": 1, "latency": [7] + [0] * 16}
STATUS = {"version": "v1", "ready": True, "admitted": True, **COUNTS}


class OpenFence:
    number = 1

    async def check(self) -> None:
        """The lease is ours."""


def http(status: int, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status} Any", f"Content-Length: {len(body)}", *headers])
    return f"{head}\r\n\r\n".encode() + body


def told(status: dict | list | None) -> dict[str, bytes]:
    return {"GET /readyz": http(200, b""), "GET /status": http(200, json.dumps(status).encode())}


class Instance:
    """Answers from a table; what is not in it gets no answer."""

    def __init__(self, answers: dict[str, bytes], *, keeps: bool = True) -> None:
        self.answers = answers
        self.keeps = keeps
        self.requests: list[str] = []
        self.peers: set[str] = set()
        self.open = 0
        self.open_most = 0

    async def serve(self, reader, writer):
        self.peers.add(writer.get_extra_info("peername")[0])
        self.open += 1
        self.open_most = max(self.open, self.open_most)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
                body = await reader.readexactly(length)
                line = head.split(" HTTP")[0]
                self.requests.append(head + body.decode())
                if line in self.answers:
                    writer.write(self.answers[line])
                    if not self.keeps:
                        break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def agent_and(instance: Instance):
    async with await asyncio.start_server(instance.serve, ADDRESS, PORT):
        yield LocalAgent(SOURCE, [IPv4Network("127.81.1.0/24")], PORT, answer_timeout_s=0.2)


def ask(instance: Instance, what):
    async def asked():
        async with agent_and(instance) as agent:
            return await what(agent)

    return asyncio.run(asyncio.wait_for(asked(), 20))


def test_a_probe_comes_from_the_agents_own_address_and_marks_itself_synthetic():
    instance = Instance(told(STATUS))
    [probe] = ask(instance, lambda agent: agent.probe([PEER]))
    assert probe == InstanceProbe("i-1", True, True, True, "v1", in_flight=2, connections=3)
    assert instance.peers == {SOURCE}
    assert all("X-Synthetic: 1" in request for request in instance.requests)


def test_an_instance_that_closes_after_each_answer_is_probed_as_well():
    closing = {
        line: answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") for line, answer in told(STATUS).items()
    }
    [probe] = ask(Instance(closing, keeps=False), lambda agent: agent.probe([PEER]))
    assert probe.reachable


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"GET /readyz": http(200, b"")},
        {**told(STATUS), "GET /status": http(500, b"{}")},
        {**told(STATUS), "GET /status": http(200, b"{")},
        {**told(STATUS), "GET /readyz": b"220 mail.example ready\r\n\r\n"},
        {**told(STATUS), "GET /readyz": b"HTTP/1.1 200 OK\r\n\r\nbody without length"},
        {**told(STATUS), "GET /readyz": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"},
        {**told(STATUS), "GET /readyz": b"x" * 300_000},
        told([]),
        told({"version": "v1"}),
        told({**STATUS, "version": None}),
        {**told(STATUS), "GET /status": http(200, b"[" * 100_000)},
        told({**STATUS, "in_flight": -1}),
        told({**STATUS, "in_flight": "0"}),
        told({**STATUS, "connections": None}),
    ],
)
def test_an_instance_that_tells_only_a_part_is_dark_for_unknown_is_not_idle(answers):
    assert ask(Instance(answers), lambda agent: agent.probe([PEER])) == [DARK]


@pytest.mark.parametrize(
    "status",
    [
        {**STATUS, "latency": [1, 2]},
        {**STATUS, "latency": None},
        {**STATUS, "requests": 1.5},
        {**STATUS, "errors": True},
    ],
)
def test_counters_that_make_no_sense_are_left_out(status):
    assert ask(Instance(told(status)), lambda agent: agent.counters([PEER])) == {}


ALL_WELL = http(
    200, b'{"zone":"aws/a","instance":"i-1","version":"v1"}', "X-Zone: aws/a", "X-Instance: i-1", "X-Version: v1"
)


@pytest.mark.parametrize(
    ("ok", "answer"),
    [
        (64, ALL_WELL),
        (0, ALL_WELL.replace(b"X-Zone: aws/a", b"X-Zone: aws/b")),
        (0, http(200, b"{}")),
        (0, http(200, b"[]")),
        (0, ALL_WELL.replace(b"200", b"500")),
        (0, b"garbage\r\n\r\n"),
    ],
)
def test_only_a_body_that_states_what_its_headers_state_is_a_success(ok, answer):
    result = ask(Instance({"GET /": answer}), lambda agent: agent.synthesize([PEER], 64, 5.0))
    assert (result.sent, result.ok, result.failed) == (64, ok, 64 - ok)


def test_an_instance_that_hangs_fails_each_request_within_its_bound_and_does_not_hold_the_call_up():
    result = ask(Instance({}), lambda agent: agent.synthesize([PEER], 10_000, 0.3))
    assert (result.ok, result.p50_ms) == (0, None)
    assert 64 <= result.failed == result.sent <= 2 * 64  # 64 at a time; a second round begins after 0.2 s of the 0.3


def test_at_most_64_connections_are_open_and_they_are_kept():
    instance = Instance({"GET /": ALL_WELL})
    assert ask(instance, lambda agent: agent.synthesize([PEER], 1000, 5.0)).ok == 1000
    assert 1 < instance.open_most <= 64
    many = Instance(told(STATUS))
    assert len(ask(many, lambda agent: agent.probe([PEER] * 200))) == 200
    assert many.open_most <= 64


@pytest.mark.parametrize(("error", "status"), [(Transient, 503), (Rejected, 404)])
def test_a_refused_admission_names_the_instance_and_its_answer(error, status):
    instance = Instance({"PUT /admission": http(status, b"")})
    with pytest.raises(error, match=f"i-1 answered {status} to PUT /admission"):
        ask(instance, lambda agent: agent.admit([PEER], admitted=False, fence=OpenFence()))
    assert instance.requests[0].endswith('{"admitted": false}')


@pytest.mark.parametrize(
    ("error", "address"),
    [
        *((Denied, "127.81.0.10"), (Denied, "169.254.169.254"), (Denied, f"{ADDRESS}:22")),
        *((Rejected, "metadata.internal"), (Rejected, ""), (Rejected, f"[::1]:{PORT}")),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda agent, peers: agent.probe(peers),
        lambda agent, peers: agent.counters(peers),
        lambda agent, peers: agent.synthesize(peers, 3, 1.0),
        lambda agent, peers: agent.admit(peers, admitted=False, fence=OpenFence()),
    ],
)
def test_a_peer_outside_its_networks_or_port_is_refused_before_anybody_is_asked(call, error, address):
    instance = Instance(told(STATUS))
    with pytest.raises(error, match="i-2"):
        ask(instance, lambda agent: call(agent, [PEER, Peer("i-2", address)]))
    assert instance.requests == []


def test_a_peer_may_name_the_services_port():
    [probe] = ask(Instance(told(STATUS)), lambda agent: agent.probe([Peer("i-1", f"{ADDRESS}:{PORT}")]))
    assert probe.reachable


def test_a_quantile_is_a_value_that_was_seen():
    assert quantile([], 0.5) is None
    assert (quantile([1, 2, 3, 4], 0.5), quantile([1, 2, 3, 4], 0.99), quantile([5], 0.01)) == (2, 4, 5)
