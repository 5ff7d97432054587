"""EC2 as the lab needs it: loopback addresses, instances that take time, launch templates whose versions count.

Closes: moto loads 2 s of public AMIs at the first call; hands out freed addresses at once; calls an instance running
at once and terminated at once; fails on user data of later template versions; ignores SourceVersion; has no capacity limits.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2 import models as ec2
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState, Reservation
from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateVersion
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses.launch_templates import LaunchTemplates
from moto.ec2.utils import parse_user_data

from orchestrator.lab.aws.graft import add, override
from orchestrator.lab.aws.world import here, now

FIRST_HOST = 10
_VERSION = re.compile(r"^\s*(?:export\s+)?VERSION=[\"']?([^\s\"']+)", re.MULTILINE)


def release_version(user_data: Any) -> str | None:
    """Return what a machine with this user data runs: the value of its line VERSION=...; None when it has none."""
    found = _VERSION.search(user_data.decode()) if user_data else None
    return found.group(1) if found else None


def is_alive(instance: Instance) -> bool:
    return instance.state in ("pending", "running")


def instances(backend: ec2.EC2Backend) -> Iterator[Instance]:
    for reservation in list(backend.reservations.values()):
        yield from list(reservation.instances)


def advance(backend: ec2.EC2Backend) -> None:
    """Move instances on: pending to running, shutting-down to terminated, terminated to forgotten (AWS: after an hour)."""
    times, clock = here().times, now()
    for reservation in list(backend.reservations.values()):
        for instance in list(reservation.instances):
            since = clock - instance.lab_since  # type: ignore[attr-defined]
            if instance.state == "pending" and since >= times.ec2_pending_s:
                set_state(instance, "running", 16)
            elif instance.state == "shutting-down" and since >= times.ec2_shutting_down_s:
                set_state(instance, "terminated", 48)
            elif instance.state == "terminated" and since >= times.terminated_kept_s:
                reservation.instances.remove(instance)
        if not reservation.instances:
            backend.reservations.pop(reservation.id, None)


def set_state(instance: Instance, name: str, code: int) -> None:
    instance._state = InstanceState(name, code)  # noqa: SLF001
    instance.lab_since = now()  # type: ignore[attr-defined]


def _run_instances(self: Any, image_id: str, count: int, *args: Any, **kwargs: Any) -> Reservation:
    """Refuse when the zone is full, else launch; new instances are pending."""
    subnet_id = kwargs.get("subnet_id")
    zone = self.get_subnet(subnet_id).availability_zone if subnet_id else None
    room = here().capacity.get(zone) if zone else None
    if room is not None and count + sum(is_alive(i) and i.placement.zone == zone for i in instances(self)) > room:
        raise EC2ClientError(
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {kwargs.get('instance_type')} capacity in the Availability Zone you requested ({zone}).",
        )
    reservation = _moto_run_instances(self, image_id, count, *args, **kwargs)
    for instance in reservation.instances:
        set_state(instance, "pending", 0)
    return reservation


def _terminate(self: Instance) -> InstanceState:
    """Shut down, then terminate. Whatever balancer has the instance as a target drains it."""
    if not is_alive(self) and self.state != "stopped":
        return InstanceState(self.state, self.state_code)
    previous = _moto_terminate(self)
    set_state(self, "shutting-down", 32)
    return previous


def _reboot(self: Instance) -> None:
    self.lab_incarnation += 1  # type: ignore[attr-defined]


def _status(self: Instance) -> dict[str, Any]:
    """Report the reachability check: what the data plane sees of the machine."""
    if self.state != "running":
        return {"Status": "not-applicable"}
    well = here().well(self.region_name, self.id)
    status, detail = ("ok", "passed") if well in (True, None) else ("impaired", "failed")
    return {"Details": [{"Name": "reachability", "Status": detail}], "Status": status}


def _next_address(self: Subnet, instance: Any) -> str:
    """Hand out .10, .11, ... and start over at the end, so that an address rests before it is used again."""
    hosts = self.cidr.num_addresses - 1 - FIRST_HOST
    start = getattr(self, "lab_next", 0)
    for step in range(hosts):
        offset = (start + step) % hosts
        address = str(ipaddress.ip_address(int(self.cidr.network_address) + FIRST_HOST + offset))
        if address not in self._subnet_ips:
            self.lab_next = offset + 1  # type: ignore[attr-defined]
            self._subnet_ips[address] = instance
            return address
    raise EC2ClientError("InsufficientFreeAddressesInSubnet", f"There are no free addresses in subnet {self.id}")


def _version_init(
    self: LaunchTemplateVersion, template: LaunchTemplate, number: int, data: dict[str, Any], description: str
) -> None:
    """Keep user data in the one type that moto's launch path takes; moto does so for version 1 only."""
    if isinstance(data.get("UserData"), (str, bytes)):
        data = {**data, "UserData": parse_user_data(data["UserData"])}
    _moto_version_init(self, template, number, data, description)


def _create_version(self: LaunchTemplates) -> ActionResult:
    """Start from SourceVersion's data when given; what the request sets replaces it key by key."""
    source = self._get_param("SourceVersion")
    if source is not None:
        template = _template(self)
        self.error_on_dryrun()
        data = {**template.get_version(source).data, **self._get_param("LaunchTemplateData", {})}
        version = template.create_version(data, self._get_param("VersionDescription"))
        return ActionResult({"LaunchTemplateVersion": _describe(self, template, version)})
    return _moto_create_version(self)


def _describe_versions(self: LaunchTemplates) -> ActionResult:
    """Answer newest first, up to 200 a page. moto answers the 15 oldest and no token."""
    template, wanted = _template(self), self._get_param("Versions", [])
    versions = [template.get_version(v) for v in wanted] if wanted else list(reversed(template.versions))
    low, high = self._get_int_param("MinVersion"), self._get_int_param("MaxVersion")
    versions = [v for v in versions if (low is None or v.number >= low) and (high is None or v.number <= high)]
    start, size = int(self._get_param("NextToken") or 0), self._get_int_param("MaxResults") or 200
    page = versions[start : start + size]
    token = str(start + size) if start + size < len(versions) else None
    return ActionResult({"LaunchTemplateVersions": [_describe(self, template, v) for v in page], "NextToken": token})


def _template(response: LaunchTemplates) -> LaunchTemplate:
    name, template_id = response._get_param("LaunchTemplateName"), response._get_param("LaunchTemplateId")  # noqa: SLF001
    backend: ec2.EC2Backend = response.ec2_backend
    return backend.get_launch_template_by_name(name) if name else backend.get_launch_template(template_id)


def _describe(response: LaunchTemplates, template: LaunchTemplate, version: LaunchTemplateVersion) -> dict[str, Any]:
    return {
        "CreateTime": version.create_time,
        "CreatedBy": f"arn:{response.partition}:iam::{response.current_account}:root",
        "DefaultVersion": template.is_default(version),
        "LaunchTemplateData": version.data,
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "VersionDescription": version.description,
        "VersionNumber": version.number,
    }


_moto_run_instances = InstanceBackend.run_instances
_moto_terminate = Instance.terminate
_moto_version_init = LaunchTemplateVersion.__init__
_moto_create_version = LaunchTemplates.create_launch_template_version


def install() -> None:
    override(AmiBackend, "_load_amis", lambda _self: None)
    override(InstanceBackend, "run_instances", _run_instances)
    override(Instance, "terminate", _terminate)
    override(Instance, "reboot", _reboot)
    override(Instance, "instance_status", property(_status))
    override(Subnet, "get_available_subnet_ip", _next_address)
    override(LaunchTemplateVersion, "__init__", _version_init)
    override(LaunchTemplates, "create_launch_template_version", _create_version)
    override(LaunchTemplates, "describe_launch_template_versions", _describe_versions)
    add(Instance, "lab_since", 0.0)
    add(Instance, "lab_incarnation", 1)
