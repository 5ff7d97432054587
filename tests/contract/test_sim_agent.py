"""The simulator's region agent keeps the promises of the Agent port."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from agent_contract import AgentContract
from sim_rig import SimRig

from orchestrator.ports import Peer
from orchestrator.sim.adapters import SimAgent
from orchestrator.sim.truth import Box, Life


class SimAgentRig(SimRig):
    """A region that nobody uses; in its second zone one instance is not ready and one is dead."""

    def __init__(self) -> None:
        super().__init__("aws")
        self.world.set_load(0.0)
        first, second, _ = (self.world.zones[zone.id] for zone in self.region.zones)
        unready, dark, _ = second.boxes
        unready.ready = False
        self.world.stop(dark, life=Life.DEAD)
        self.agent = SimAgent(self.world, self.wire, self.region.id)
        self.peers = [_peer(box) for box in first.boxes]
        self.unready, self.dark = _peer(unready), _peer(dark)

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        async def later() -> None:
            await self.sleep(30.0)  # until the last user's request has ended
            await test

        super().run(later())

    async def serve_users(self, peer: Peer, requests: int) -> None:
        self.world.boxes[peer.id].requests += requests


def _peer(box: Box) -> Peer:
    return Peer(box.id, box.address)


@contextmanager
def sim_agent_rig() -> Iterator[SimAgentRig]:
    yield SimAgentRig()


class TestSimAgent(AgentContract):
    open_rig = staticmethod(sim_agent_rig)
