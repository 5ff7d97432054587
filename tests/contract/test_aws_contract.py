"""The AWS adapters keep the promises of their ports on the lab's emulated AWS."""

from __future__ import annotations

from aws_rig import aws_rig
from fleet_contract import FleetContract
from global_contract import GlobalContract
from traffic_contract import TrafficContract


class TestAwsFleet(FleetContract):
    open_rig = staticmethod(aws_rig)


class TestAwsTraffic(TrafficContract):
    open_rig = staticmethod(aws_rig)


class TestRoute53(GlobalContract):
    open_rig = staticmethod(aws_rig)
