"""The global tier: an authoritative DNS server with Route 53's weighted records and health checks.

It answers from a thread of its own, so that users get their answer while the daemon is busy. Source of the rules: the
Route 53 developer guide, "How Amazon Route 53 chooses records when health checking is configured".
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dnslib import QTYPE, RCODE, RR, A, DNSError, DNSRecord

from orchestrator.core.errors import Rejected
from orchestrator.lab.haproxy import NODE_HEALTH_PATH
from orchestrator.lab.model import (
    FRONT_PORT,
    DesiredDns,
    DesiredRegion,
    DnsHealthCheck,
    Front,
    FrontKind,
    TargetHealth,
)
from orchestrator.lab.prober import Check, Checks
from orchestrator.lab.timeline import Timeline

CHECKER = "127.0.0.1"  # health checkers stand outside of every region
NODE_CHECK_INTERVAL_S, NODE_CHECK_ANSWERS = 0.3, 2
NODE = ""  # stands for the load balancer's check of its own nodes
CheckKey = tuple[str, str]  # NODE or a health check's id, address


@dataclass(frozen=True, slots=True)
class Answer:
    """A record as the server may answer it."""

    set_id: str
    weight: int
    ttl_s: int
    addresses: tuple[str, ...]
    healthy: bool


def candidates(answers: Sequence[Answer]) -> tuple[Sequence[Answer], Sequence[int]]:
    """Return the records to choose among and their weights.

    Records of weight 0 are considered only when no weighted one is healthy; when nothing is healthy, everything counts
    as healthy.
    """
    weighted = [a for a in answers if a.weight > 0]
    idle = [a for a in answers if a.weight == 0]
    for choice in ([a for a in weighted if a.healthy], [a for a in idle if a.healthy], weighted, idle):
        if choice:
            return choice, [a.weight or 1 for a in choice]
    return (), ()


class DnsServer:
    """UDP server on `address`:`port`; `publish` replaces what it knows."""

    def __init__(self, address: str, port: int, *, seed: int) -> None:
        self._names: Mapping[str, Sequence[Answer]] = {}
        self._random = random.Random(seed)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((address, port))
        except OSError as error:
            self._socket.close()
            raise Rejected(
                f"cannot serve DNS at {address}:{port}: {error.strerror}; does another lab run there?"
            ) from error
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="lab-dns", daemon=True)
        self._thread.start()

    def publish(self, names: Mapping[str, Sequence[Answer]]) -> None:
        self._names = names

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", self._socket.getsockname())  # wakes the thread
        self._thread.join(timeout=2)
        self._socket.close()

    def reply(self, query: DNSRecord) -> DNSRecord:
        """Answer one query: one record set by weight, all its addresses in random order."""
        reply = query.reply()
        name = str(query.q.qname).lower()
        answers = self._names.get(name)
        if answers is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif query.q.qtype == QTYPE.A:
            choice, weights = candidates(answers)
            if choice:
                chosen = self._random.choices(choice, weights)[0]
                addresses = self._random.sample(chosen.addresses, len(chosen.addresses))
                for address in addresses:
                    reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(address), ttl=chosen.ttl_s))
        return reply

    def _serve(self) -> None:
        while not self._closing:
            data, peer = self._socket.recvfrom(4096)
            with contextlib.suppress(DNSError, OSError):
                if data:
                    self._socket.sendto(self.reply(DNSRecord.parse(data)).pack(), peer)


class Dns:
    """What the server answers, from the records, their health checks and the load balancers' nodes."""

    def __init__(self, timeline: Timeline, server: DnsServer) -> None:
        self._timeline, self._server = timeline, server
        self._checks: Checks[CheckKey] = Checks()
        self._told: dict[str, Sequence[Answer]] = {}

    async def close(self) -> None:
        await self._checks.close()
        self._server.close()

    def reconcile(self, wanted: DesiredDns, regions: Sequence[DesiredRegion]) -> None:
        """Check what is to be checked and publish what is to be answered."""
        fronts = {front.name: front for region in regions for front in region.fronts}
        asked = {check.id: _asked(check, fronts) for check in wanted.checks}
        self._checks.reconcile(_checks(wanted, fronts, asked))
        names: dict[str, list[Answer]] = {}
        for record in wanted.records:
            front = fronts.get(record.front)
            addresses = self._node_addresses(front) if front else record.addresses
            healthy = record.health_check is None or any(
                self._checks.health((record.health_check, address)) is not TargetHealth.UNHEALTHY
                for address in asked.get(record.health_check, ())
            )
            answer = Answer(record.set_id, record.weight, int(record.ttl_s), addresses, healthy)
            names.setdefault(record.name.lower().rstrip(".") + ".", []).append(answer)
        self._server.publish(names)
        self._tell(names)

    def _node_addresses(self, front: Front) -> tuple[str, ...]:
        """Return the nodes that are in DNS: with cross-zone balancing those that live and are not shifted away, else all."""
        up = [
            address
            for zone, address in front.nodes.items()
            if zone not in front.away and self._checks.health((NODE, address)) is not TargetHealth.UNHEALTHY
        ]
        return tuple(up or front.nodes.values())

    def _tell(self, names: Mapping[str, Sequence[Answer]]) -> None:
        for name, answers in names.items():
            if self._told.get(name) != answers:
                choice, _ = candidates(answers)
                weights = {a.set_id: a.weight for a in answers}
                self._timeline.write("dns", name=name, weights=weights, answers={a.set_id: a.addresses for a in choice})
        self._told = dict(names)


def _asked(check: DnsHealthCheck, fronts: Mapping[str, Front]) -> tuple[str, ...]:
    """Return the addresses that a health check asks; one good answer is enough, as for a name with many addresses."""
    if check.address:
        return (check.address,)
    return tuple(fronts[check.front].nodes.values()) if check.front in fronts else ()


def _checks(
    wanted: DesiredDns, fronts: Mapping[str, Front], asked: Mapping[str, Sequence[str]]
) -> dict[CheckKey, Check]:
    nodes = {
        (NODE, address): Check(
            CHECKER,
            address,
            FRONT_PORT,
            NODE_HEALTH_PATH,
            NODE_CHECK_INTERVAL_S,
            NODE_CHECK_ANSWERS,
            NODE_CHECK_ANSWERS,
        )
        for front in fronts.values()
        if front.kind is FrontKind.ALB
        for address in front.nodes.values()
    }
    records = {
        (check.id, address): Check(
            CHECKER, address, FRONT_PORT, check.path, check.interval_s, check.failures, check.failures
        )
        for check in wanted.checks
        for address in asked[check.id]
    }
    return {**nodes, **records}
