"""The policy pack: `pulumi preview --policy-pack ../policy` in each program's folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    ReportViolation,
    StackValidationArgs,
    StackValidationPolicy,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the engine starts this file, nothing is installed

from infra.policy.rules import RULES, Thing, Violation

Rule = Callable[[Sequence[Thing]], Iterator[Violation]]


def policy(name: str, rule: Rule, demands: str, source: str) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        urns = {thing.name: thing.urn for thing in args.resources}
        for violation in rule(args.resources):
            report(f"{violation.name or 'the stack'}: {violation.what} ({source})", urns.get(violation.name))

    return StackValidationPolicy(
        name=name, description=f"{demands} {source}", validate=validate, enforcement_level=EnforcementLevel.MANDATORY
    )


POLICIES: list[Policy] = [policy(name, *rule) for name, rule in RULES.items()]

if __name__ == "__main__":
    PolicyPack(name="failout-zones", enforcement_level=EnforcementLevel.MANDATORY, policies=POLICIES)
