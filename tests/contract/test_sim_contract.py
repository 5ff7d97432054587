"""The simulator's fakes keep the same promises as the adapters of the real clouds."""

from __future__ import annotations

from fleet_contract import FleetContract
from global_contract import GlobalContract
from sim_rig import aws_sim_rig, azure_sim_rig
from traffic_contract import TrafficContract


class TestSimAwsFleet(FleetContract):
    open_rig = staticmethod(aws_sim_rig)


class TestSimAzureFleet(FleetContract):
    open_rig = staticmethod(azure_sim_rig)


class TestSimAwsTraffic(TrafficContract):
    open_rig = staticmethod(aws_sim_rig)


class TestSimAzureTraffic(TrafficContract):
    open_rig = staticmethod(azure_sim_rig)


class TestSimDns(GlobalContract):
    open_rig = staticmethod(aws_sim_rig)
