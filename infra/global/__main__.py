"""The global tier: DNS over the regions that the AWS and Azure stacks have made."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pulumi

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the engine starts this file, nothing is installed

from infra.components.global_traffic import GlobalTraffic, GlobalTrafficArgs
from infra.components.settings import GlobalSettings, load

settings = load(GlobalSettings, pulumi.Config())


@cache
def stack(name: str) -> pulumi.StackReference:
    return pulumi.StackReference(name)


fronts = {member.id: stack(member.stack).require_output("fronts")[member.id] for member in settings.regions}
role = stack(settings.orchestrator_stack).require_output("orchestrator_role") if settings.orchestrator_stack else None
traffic = GlobalTraffic(settings.service, GlobalTrafficArgs(settings, fronts, role))
pulumi.export("topology", traffic.document)
