"""The root group: each noun is a module of its own, imported when it is named."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Final

import click

# noun -> (module, its one-line help): help lists them without importing any.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "agent": ("agent", "Run the region agent, the only one that reaches instances."),
    "demo": ("demo", "Deploy v2 over v1 in a lab of its own, under live traffic, and report."),
    "audit": ("audit", "Show who did what and why, and check that the log is whole."),
    "deploy": ("deploy", "Deploy a version zone by zone, or carry on with the deploy that was interrupted."),
    "deployments": ("deployments", "List and show deploys; pause, resume, abort or roll back one."),
    "doctor": ("doctor", "Check credentials, permissions, reachability, topology and state. Changes nothing."),
    "drill": ("drill", "Drill the loss of a zone or a region, now or by schedule, and keep the proof."),
    "freeze": ("freeze", "Start nothing new: no deploy, no drill. Evacuations and returns go on."),
    "init": ("init", "Write a commented failout.yaml to start from."),
    "kill-switch": ("kill_switch", "Stop every automatic act."),
    "lab": ("lab", "Raise, break, heal and take down labs: emulated clouds over real processes."),
    "plan": ("plan", "Say what a deploy would do: order, weights, capacity, estimate. Changes nothing."),
    "proof": ("proof", "Show how fresh and how strong the proof of each zone is, against the objective."),
    "region": ("region", "Move the users of a whole region elsewhere, and back in steps."),
    "report": ("report", "Show what a run did, what users got meanwhile, and what it proved."),
    "runbook": ("runbook", "Read, check and run runbooks: documents that people read and Failout executes."),
    "serve": ("serve", "Carry the service's runs, watch expiries, expose /healthz and /metrics."),
    "signal": ("signal", "Ask the outside signals that decide on drills."),
    "sim": ("sim", "Run the shipped code through seeded, simulated histories and check the invariants."),
    "state": ("state", "Back up, restore and prune the state."),
    "status": ("status", "Show what is going on, zone by zone."),
    "topology": ("topology", "Show the clouds, regions and zones of the service."),
    "unfreeze": ("unfreeze", "End a freeze."),
    "zone": ("zone", "Drain or evacuate one zone by hand, and bring it back."),
}


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {cmd_name!r}.{hint}")
        module = importlib.import_module(f"orchestrator.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="failout", prog_name="failout")
def root() -> None:
    """Deploy by failing out one availability zone at a time, across AWS and Azure."""
