"""A region's network on AWS: per zone one block of addresses, two subnets, a NAT gateway and a route table of its own.

What one zone needs to reach the world stands in that zone, so losing another changes nothing for it.
https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-basics.html (a NAT gateway for each zone)
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.settings import AwsRegionSettings, Service


@dataclass(frozen=True, slots=True)
class AwsNetworkArgs:
    """`log_bucket_arn` is where flow logs go."""

    service: Service
    region: AwsRegionSettings
    log_bucket_arn: Input[str]


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    region: str
    vpc: Output[str]
    zone: str
    tags: dict[str, str]


class AwsNetwork(pulumi.ComponentResource):
    """`public` (load balancer, NAT) and `private` (instances) map each zone to its subnet; `vpc_id`."""

    vpc_id: Output[str]
    public: dict[str, Output[str]]
    private: dict[str, Output[str]]

    def __init__(self, name: str, args: AwsNetworkArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:Network", name, None, opts)
        me, region = ResourceOptions(parent=self), args.region.name
        tags = args.service.labels("network")
        vpc = aws.ec2.Vpc(
            name,
            region=region,
            cidr_block=args.region.cidr,
            enable_dns_hostnames=True,
            tags={**tags, "Name": name},
            opts=me,
        )
        # What nobody chose a group for is allowed nothing.
        aws.ec2.DefaultSecurityGroup(f"{name}-default", region=region, vpc_id=vpc.id, tags=tags, opts=me)
        aws.ec2.FlowLog(
            f"{name}-flows",
            region=region,
            vpc_id=vpc.id,
            traffic_type="ALL",
            log_destination_type="s3",
            log_destination=Output.concat(args.log_bucket_arn, "/flows"),
            tags=tags,
            opts=me,
        )
        gateway = aws.ec2.InternetGateway(name, region=region, vpc_id=vpc.id, tags=tags, opts=me)
        routes = aws.ec2.RouteTable(
            f"{name}-public",
            region=region,
            vpc_id=vpc.id,
            routes=[{"cidr_block": "0.0.0.0/0", "gateway_id": gateway.id}],
            tags=tags,
            opts=me,
        )
        self.vpc_id, self.public, self.private = vpc.id, {}, {}
        for zone, block in args.region.zone_blocks().items():
            private, public = (str(half) for half in block.subnets(prefixlen_diff=1))
            own = args.service.labels("network", zone)
            place = _Place(f"{name}-{zone}", region, vpc.id, zone, own)
            self.public[zone], nat = self._public(place, public, routes.id)
            self.private[zone] = self._private(place, private, nat)
        self.register_outputs({"vpc_id": vpc.id})

    def _public(self, place: _Place, cidr: str, routes: Output[str]) -> tuple[Output[str], Output[str]]:
        """Make the subnet of load balancer node and NAT gateway; return its id and the gateway's."""
        me, name = ResourceOptions(parent=self), f"{place.name}-public"
        subnet = self._subnet(name, place, cidr, routes)
        address = aws.ec2.Eip(name, region=place.region, domain="vpc", tags=place.tags, opts=me)
        nat = aws.ec2.NatGateway(
            name, region=place.region, subnet_id=subnet, allocation_id=address.id, tags=place.tags, opts=me
        )
        return subnet, nat.id

    def _private(self, place: _Place, cidr: str, nat: Output[str]) -> Output[str]:
        name = f"{place.name}-private"
        routes = aws.ec2.RouteTable(
            name,
            region=place.region,
            vpc_id=place.vpc,
            routes=[{"cidr_block": "0.0.0.0/0", "nat_gateway_id": nat}],
            tags=place.tags,
            opts=ResourceOptions(parent=self),
        )
        return self._subnet(name, place, cidr, routes.id)

    def _subnet(self, name: str, place: _Place, cidr: str, routes: Output[str]) -> Output[str]:
        me = ResourceOptions(parent=self)
        subnet = aws.ec2.Subnet(
            name,
            region=place.region,
            vpc_id=place.vpc,
            availability_zone=place.zone,
            cidr_block=cidr,
            map_public_ip_on_launch=False,
            tags={**place.tags, "Name": name},
            opts=me,
        )
        aws.ec2.RouteTableAssociation(name, region=place.region, subnet_id=subnet.id, route_table_id=routes, opts=me)
        made: Output[str] = subnet.id
        return made
