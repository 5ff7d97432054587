"""The Azure adapters keep the promises of their ports on the lab's ARM stand-in."""

from __future__ import annotations

from azure_rig import azure_rig
from fleet_contract import FleetContract
from global_contract import GlobalContract
from traffic_contract import TrafficContract


class TestAzureFleet(FleetContract):
    open_rig = staticmethod(azure_rig)


class TestAzureTraffic(TrafficContract):
    open_rig = staticmethod(azure_rig)


class TestTrafficManager(GlobalContract):
    open_rig = staticmethod(azure_rig)
