"""The lab's AWS: moto with its gaps closed (instance refresh, draining, groups that take time, zonal shift, DNS).

    from orchestrator.lab.aws import EmulatedAws, Record, RegionPlan, provision_dns, provision_region

    with EmulatedAws(["us-east-1"]) as aws:
        zones = ("us-east-1a", "us-east-1b", "us-east-1c")
        region = provision_region(aws.endpoint, RegionPlan("gates", "us-east-1", block=21, zones=zones, version="v1"))
        tier = provision_dns(aws.endpoint, "gates", [Record("aws/us-east-1", 100, alias=region)])
        document = {"schema": 1, "service": "gates", "global": tier, "regions": [region.topology]}
        ...  # the data plane reads aws.desired() and aws.desired_dns(), and reports with aws.observe(seen)

Without any `observe` every running instance passes its status check and every target stays `initial`.
"""

from orchestrator.lab.aws.plane import EmulatedAws
from orchestrator.lab.aws.provision import Record, Region, RegionPlan, provision_dns, provision_region
from orchestrator.lab.aws.world import Times

__all__ = ["EmulatedAws", "Record", "Region", "RegionPlan", "Times", "provision_dns", "provision_region"]
