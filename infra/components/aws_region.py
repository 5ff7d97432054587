"""One AWS region of the service, whole; and a stack's worth of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.aws_access import AwsRole, AwsRoleArgs, document, orchestrator_statements, secret_statements
from infra.components.aws_appliance import AwsAgentAddress, AwsAgentAddressArgs, AwsAppliance, AwsApplianceArgs
from infra.components.aws_fleet import AwsTemplate, AwsTemplateArgs, AwsZoneFleet, AwsZoneFleetArgs
from infra.components.aws_front import AwsFront, AwsFrontArgs, front_port
from infra.components.aws_logs import AwsLogs, AwsLogsArgs
from infra.components.aws_network import AwsNetwork, AwsNetworkArgs
from infra.components.boot import AGENT_PORT, agent_command, aws_token, script
from infra.components.settings import Appliance, AwsRegionSettings, AwsSettings, Host
from infra.components.topology import region_document, zone_document

WORLD = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class AwsRegionArgs:
    settings: AwsSettings
    region: AwsRegionSettings
    account: str
    instance_profile: Input[str]
    agent_profile: Input[str] | None = None


class AwsRegion(pulumi.ComponentResource):
    """`document`: the region's part of the topology. `front`: what its DNS record needs. `network`, `host_group`."""

    document: Output[dict[str, Any]]
    front: Output[dict[str, Any]]
    front_arns: list[Output[str]]
    template_arn: Output[str]
    network: AwsNetwork

    def __init__(self, name: str, args: AwsRegionArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:Region", name, None, opts)
        me, service, region = ResourceOptions(parent=self), args.settings, args.region
        logs = AwsLogs(f"{name}-logs", AwsLogsArgs(service, region.name, args.account, args.settings.log_days), me)
        self.network = AwsNetwork(name, AwsNetworkArgs(service, region, logs.arn), me)
        self._args, self._name = args, name
        guards = self._guards()
        front_args = AwsFrontArgs(
            service, region, self.network.vpc_id, self.network.public, guards["front"].id, logs.name
        )
        front = AwsFront(name, front_args, me)
        template = AwsTemplate(
            name, AwsTemplateArgs(service, region, guards["instances"].id, args.instance_profile), me
        )
        zones = []
        for zone in region.zones:
            fleet = AwsZoneFleet(
                f"{service.service}-{zone}",
                AwsZoneFleetArgs(
                    service,
                    region,
                    zone,
                    self.network.private[zone],
                    template.template_id,
                    template.version,
                    front.steady_arn,
                    [front],
                ),
                me,
            )
            named = {"auto_scaling_group": fleet.group, "launch_template_id": template.template_id}
            zones.append(zone_document(f"aws/{zone}", zone, region.capacity, named))
        url = self._agents(region.agent, guards) if region.agent else Output.from_input(region.agent_url)
        self.document = region_document("aws", service, region, url, front.attributes, zones)
        self.front = Output.all(name=front.dns_name, zone=front.zone_id).apply(
            lambda d: {"kind": "alias", "dns_name": d["name"], "zone_id": d["zone"], "weight": region.weight}
        )
        self.front_arns = [arn for key, arn in front.attributes.items() if key != "load_balancer_arn"]
        self.template_arn = template.template_id.apply(
            lambda made: f"arn:aws:ec2:{region.name}:{args.account}:launch-template/{made}"
        )
        self.register_outputs({"document": self.document})

    def _guards(self) -> dict[str, Any]:
        """Security groups: users -> front -> instances <- agents <- the region's own network and the orchestrator's."""
        service, region = self._args.settings, self._args.region
        users = [_rule(front_port(service, region), cidr_blocks=[WORLD])]
        if region.certificate_arn:
            users.append(_rule(80, cidr_blocks=[WORLD]))
        front = self._guard("front", "users to the load balancer", users)
        agents = self._guard(
            "agents", "orchestrator to region agents", [_rule(AGENT_PORT, cidr_blocks=["10.0.0.0/8", region.cidr])]
        )
        peers = [_rule(service.service_port, security_groups=[front.id, agents.id])]
        instances = self._guard("instances", "load balancer and region agents to instances", peers)
        return {"front": front, "agents": agents, "instances": instances}

    def _guard(self, kind: str, why: str, ingress: list[dict[str, Any]]) -> Any:
        service, region = self._args.settings, self._args.region
        return aws.ec2.SecurityGroup(
            f"{self._name}-{kind}",
            region=region.name,
            name=f"{service.service}-{kind}",
            description=why,
            vpc_id=self.network.vpc_id,
            ingress=ingress,
            egress=[{"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": [WORLD]}],
            tags=service.labels("network"),
            opts=ResourceOptions(parent=self),
        )

    def _agents(self, agent: Appliance, guards: dict[str, Any]) -> Output[str]:
        service, region, me = self._args.settings, self._args.region, ResourceOptions(parent=self)
        assert self._args.agent_profile is not None
        name, subnets = f"{self._name}-agent", self.network.private
        guard = guards["agents"].id
        address = AwsAgentAddress(
            name, AwsAgentAddressArgs(service, region.name, self.network.vpc_id, list(subnets.values()), guard), me
        )
        boot = script(agent, aws_token(agent, region.name), agent_command(region.cidr, service.service_port))
        groups: dict[str, list[Input[str]]] = {f"{service.service}-agent-{zone}": [subnets[zone]] for zone in subnets}
        AwsAppliance(
            name,
            AwsApplianceArgs(
                service,
                region.name,
                "agent",
                agent,
                boot,
                groups,
                guard,
                self._args.agent_profile,
                address.target_group_arn,
            ),
            me,
        )
        return address.url


def _rule(port: int, **source: Any) -> dict[str, Any]:
    return {"protocol": "tcp", "from_port": port, "to_port": port, **source}


@dataclass(frozen=True, slots=True)
class AwsStack:
    """What the `aws` program exports."""

    documents: list[Output[dict[str, Any]]]
    fronts: dict[str, Output[dict[str, Any]]]
    role: Output[str]


def provision(settings: AwsSettings) -> AwsStack:
    """Register everything that an AWS stack has."""
    service, account = settings.service, str(aws.get_caller_identity().account_id)
    instances = AwsRole(f"{service}-instance", AwsRoleArgs(settings, "fleet", {}))
    regions = []
    for region in settings.regions:
        agent = None
        if region.agent:
            token = {"token": document(secret_statements(region.agent.token_secret))}
            agent = AwsRole(f"{service}-agent-{region.name}", AwsRoleArgs(settings, "agent", token))
        args = AwsRegionArgs(settings, region, account, instances.profile, agent.profile if agent else None)
        regions.append(AwsRegion(f"{service}-{region.name}", args))
    policy = Output.all(
        templates=Output.all(*(r.template_arn for r in regions)),
        fronts=Output.all(*(arn for r in regions for arn in r.front_arns)),
        role=instances.arn,
    ).apply(lambda d: document(orchestrator_statements(account, service, d["templates"], d["fronts"], d["role"])))
    role = _orchestrator(settings, policy, {r.name: made for r, made in zip(settings.regions, regions, strict=True)})
    fronts = {f"aws/{r.name}": made.front for r, made in zip(settings.regions, regions, strict=True)}
    return AwsStack([r.document for r in regions], fronts, role.name)


def _orchestrator(settings: AwsSettings, policy: Output[str], regions: dict[str, AwsRegion]) -> AwsRole:
    """Make the orchestrator's role, and the machine that takes it when the stack says where."""
    host: Host | None = settings.orchestrator
    policies: dict[str, Input[str]] = {"zones": policy}
    if host:
        policies["token"] = document(secret_statements(host.appliance.token_secret))
    taken_by = settings.orchestrator_principals
    role = AwsRole(f"{settings.service}-orchestrator", AwsRoleArgs(settings, "orchestrator", policies, taken_by))
    if host is None:
        return role
    region = regions[host.region]
    name = f"{settings.service}-orchestrator"
    guard = aws.ec2.SecurityGroup(
        name,
        region=host.region,
        name=name,
        description="the orchestrator: nobody connects to it",
        vpc_id=region.network.vpc_id,
        ingress=[],
        egress=[{"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": [WORLD]}],
        tags=settings.labels("orchestrator"),
    )
    boot = script(host.appliance, aws_token(host.appliance, host.region), host.command)
    AwsAppliance(
        name,
        AwsApplianceArgs(
            settings,
            host.region,
            "orchestrator",
            host.appliance,
            boot,
            {name: list(region.network.private.values())},
            guard.id,
            role.profile,
        ),
    )
    return role
