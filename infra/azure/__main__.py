"""The Azure part of the service: every region that the stack's configuration names."""

from __future__ import annotations

import sys
from pathlib import Path

import pulumi

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the engine starts this file, nothing is installed

from infra.components.azure_region import provision
from infra.components.settings import AzureSettings, load
from infra.components.topology import regional

settings = load(AzureSettings, pulumi.Config())
stack = provision(settings)
pulumi.export("topology", regional(settings.service, stack.documents))
pulumi.export("fronts", stack.fronts)
