"""What every Agent promises. To put one under it: subclass AgentContract with an `open_rig`, as for the other ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pytest
from contract_rig import OpenFence, Rig, StaleFence

from orchestrator.core.errors import StaleCarrier, Transient
from orchestrator.core.health import LATENCY_BOUNDS_MS, InstanceProbe, Synthetic
from orchestrator.ports import Agent, Peer


class AgentRig(Rig, Protocol):
    """`peers`: three instances of v1, ready, admitted, without users. `unready` listens, `dark` does not answer at all."""

    agent: Agent
    peers: Sequence[Peer]
    unready: Peer
    dark: Peer

    async def serve_users(self, peer: Peer, requests: int) -> None:
        """Have the instance answer that many requests of users, all well."""


class AgentContract:
    open_rig: Callable[[], AbstractContextManager[AgentRig]]

    @pytest.fixture
    def rig(self) -> Iterator[AgentRig]:
        with self.open_rig() as rig:
            yield rig

    async def test_a_probe_tells_of_each_peer_in_the_order_asked(self, rig: AgentRig) -> None:
        asked = [rig.peers[2], rig.peers[0], rig.peers[1]]
        well = [InstanceProbe(p.id, True, True, True, "v1", in_flight=0, connections=0) for p in asked]
        assert list(await rig.agent.probe(asked)) == well

    async def test_an_instance_that_is_not_ready_is_reachable(self, rig: AgentRig) -> None:
        [probe] = await rig.agent.probe([rig.unready])
        assert (probe.reachable, probe.ready, probe.version) == (True, False, "v1")

    async def test_an_instance_that_does_not_answer_is_dark_and_has_no_version(self, rig: AgentRig) -> None:
        dark, well = await rig.agent.probe([rig.dark, rig.peers[0]])
        assert dark == InstanceProbe(rig.dark.id, False, False, False, None, in_flight=0, connections=0)
        assert well.reachable

    async def test_users_requests_are_counted_where_they_were_served(self, rig: AgentRig) -> None:
        await rig.serve_users(rig.peers[0], 20)
        counters = await rig.agent.counters(rig.peers)
        assert {peer.id: (counters[peer.id].requests, counters[peer.id].errors) for peer in rig.peers} == {
            rig.peers[0].id: (20, 0),
            rig.peers[1].id: (0, 0),
            rig.peers[2].id: (0, 0),
        }
        latency = counters[rig.peers[0].id].latency
        assert (len(latency), sum(latency)) == (len(LATENCY_BOUNDS_MS) + 1, 20)

    async def test_an_instance_that_does_not_answer_is_left_out_of_the_counters(self, rig: AgentRig) -> None:
        assert set(await rig.agent.counters([rig.dark, rig.peers[0]])) == {rig.peers[0].id}

    async def test_synthetic_requests_are_all_sent_timed_and_never_counted_as_users(self, rig: AgentRig) -> None:
        result = await rig.agent.synthesize(rig.peers, 50, 10.0)
        assert (result.sent, result.ok, result.failed) == (50, 50, 0)
        assert result.p50_ms is not None
        assert result.p99_ms is not None
        assert 0 < result.p50_ms <= result.p99_ms
        assert [c.requests for c in (await rig.agent.counters(rig.peers)).values()] == [0, 0, 0]

    async def test_every_peer_gets_its_part_of_the_synthetic_requests(self, rig: AgentRig) -> None:
        result = await rig.agent.synthesize([*rig.peers, rig.dark], 40, 10.0)
        assert (result.sent, result.ok, result.failed) == (40, 30, 10)

    async def test_what_there_was_no_time_for_is_not_sent_and_not_a_success(self, rig: AgentRig) -> None:
        result = await rig.agent.synthesize(rig.peers, 50_000, 0.2)
        assert 0 < result.sent < 50_000
        assert result.sent == result.ok + result.failed

    async def test_nobody_to_ask_is_no_data(self, rig: AgentRig) -> None:
        assert list(await rig.agent.probe([])) == []
        assert await rig.agent.counters([]) == {}
        assert await rig.agent.synthesize([], 50, 1.0) == Synthetic(0, 0, 0, None, None)
        await rig.agent.admit([], admitted=False, fence=OpenFence())

    async def test_admission_is_set_where_asked_as_often_as_asked(self, rig: AgentRig) -> None:
        first, second, third = rig.peers
        for _ in range(2):
            await rig.agent.admit([first, second], admitted=False, fence=OpenFence())
            assert [probe.admitted for probe in await rig.agent.probe(rig.peers)] == [False, False, True]
        await rig.agent.admit([second, third], admitted=True, fence=OpenFence())
        assert [probe.admitted for probe in await rig.agent.probe(rig.peers)] == [False, True, True]

    async def test_whoever_lost_its_lease_sets_no_flag_i1(self, rig: AgentRig) -> None:
        with pytest.raises(StaleCarrier):
            await rig.agent.admit(rig.peers, admitted=False, fence=StaleFence())
        assert [probe.admitted for probe in await rig.agent.probe(rig.peers)] == [True, True, True]

    async def test_a_flag_that_could_not_be_set_is_an_error_but_keeps_no_other_from_being_set(
        self, rig: AgentRig
    ) -> None:
        with pytest.raises(Transient):
            await rig.agent.admit([rig.dark, rig.peers[0]], admitted=False, fence=OpenFence())
        assert not (await rig.agent.probe(rig.peers))[0].admitted
