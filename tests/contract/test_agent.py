"""The region agent, asked in its own process and over HTTP, keeps the promises of the Agent port."""

from __future__ import annotations

from agent_contract import AgentContract
from agent_rig import http_agent_rig, local_agent_rig


class TestLocalAgent(AgentContract):
    open_rig = staticmethod(local_agent_rig)


class TestHttpAgent(AgentContract):
    open_rig = staticmethod(http_agent_rig)
