"""`failout init`: a failout.yaml that says what every setting means, with the defaults that are shipped."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from orchestrator.cli.common import emit, options
from orchestrator.core.errors import Rejected, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.drill import DrillPolicy
    from orchestrator.core.policy import DeployPolicy
    from orchestrator.core.standing import Objective

FULL: Final = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
# Every key, in the order in which a deploy meets it: tests/config/test_init_shows_every_setting.py fails when one is missing.
POLICY = {
    "max_utilisation": "I3: what survivors may be loaded to once a zone is out, 0..1",
    "scale_survivors": "I3: scale survivors out first when they could not carry the load; false refuses instead",
    "on_failure": "what a sick version does: hold | rollback-zone | rollback-all",
    "ramp_shares": "I9: steps of a zone's return; steps too small to be measured are merged into the next",
    "ramp_step_s": "seconds that each step is compared with the survivors",
    "bake_s": "seconds that a restored zone is watched before the next one",
    "bake_first_factor": "the first zone is watched so many times longer",
    "load_window_s": "seconds over which load is measured",
    "poll_s": "seconds between two looks at a cloud",
    "admit_timeout_s": "how long a zone waits to be allowed to leave",
    "prepare_timeout_s": "how long survivors may take to be scaled, or the global tier to move",
    "drain_timeout_s": "how long a zone may take to empty; then it returns as it was",
    "upgrade_timeout_s": "how long replacing its instances may take",
    "verify_timeout_s": "how long instances may take to be ready, and synthetic requests to be answered",
    "synthetic_failed_share_max": "share of synthetic requests that may fail, 0..1",
    "synthetic_p50_max_ms": "their median, milliseconds",
    "out_expires_s": "I8: a zone that is out for longer is told to a person",
    "on_expiry": "what follows then: hold (the run waits for a person) | restore (the zone comes back, the run ends)",
    "gate": "the health gate: a returning zone against the survivors",
}
GATE = {
    "samples_min": "fewer requests than this are inconclusive",
    "error_share_max": "how many more of its requests may fail than the survivors', 0..1",
    "errors_min": "fewer errors than this are chance",
    "p50_added_max_ms": "how much slower its median may be, milliseconds",
    "slow_share_max": "share of requests that may be clearly slower than the survivors' p99, 0..1",
    "slow_min": "fewer slow requests than this are chance",
}

OBJECTIVE = {
    "age_days_max": "a proof that is older is stale, days",
    "load_share_min": "a proof under less than this share of the peak is weak, 0..1",
    "failed_share_max": "a fail-out during which more of the requests failed proves nothing, 0..1",
    "peak_rps": "the service's peak, requests a second, as people know it; without it the most that Failout has seen",
}
DRILLS = {
    "duration_s": "seconds that a place is out",
    "read_every_s": "seconds between two looks at the signals",
    "unknown_max_s": "seconds that a drill goes on while nobody can say how the service is; then it is interrupted",
}
# A key that has no default is shown with this value, and stays a comment of its own when the others are uncommented.
EXAMPLES = {"peak_rps": 900}

SIGNALS = """\
# signals:                       # outside opinions on the service; no drill starts without one that is good (I15)
#   users: {kind: http, url: "https://gates.example/healthz", status: 200, contains: ok, timeout_s: 5}
#   errors: {kind: prometheus, url: "http://prometheus:9090", query: "sum(rate(errors[1m]))", max: 0.5}  # and `min`
#   pages: {kind: command, command: [/usr/local/bin/pages, gates]}  # 0 good, 1 or 2 bad, else unknown
#   alarm: {kind: cloudwatch-alarm, region: us-east-1, alarm: gates-5xx}  # `endpoint_url`: a VPC endpoint
#   alert: {kind: azure-alert, rule: /subscriptions/ID/resourceGroups/G/providers/Microsoft.Insights/metricAlerts/NAME}
#   lab: {kind: lab-traffic, folder: .failout/labs/default, failed_share_max: 0, window_s: 5}  # `failout lab traffic`
# drills:
#   outcome_signals: [users]     # bad: the drill ends at once and has failed
#   blocking_signals: [pages]    # bad: none starts, and one that is under way is interrupted
"""


@click.command("init")
@click.option("--service", required=True, help="The name of your service, as in the topology document.")
@click.option("--force", is_flag=True, help="Replace a failout.yaml that is there.")
@options
def command(service: str, *, force: bool, as_json: bool) -> None:
    """Write failout.yaml here: every setting with its default and what it means, commented out."""
    from orchestrator.core.drill import DrillPolicy  # noqa: PLC0415
    from orchestrator.core.policy import DeployPolicy  # noqa: PLC0415
    from orchestrator.core.standing import Objective  # noqa: PLC0415

    path = Path("failout.yaml")
    text = document(service, DeployPolicy(), Objective(), DrillPolicy())
    try:
        _write(path, text, force=force)
    except FileExistsError:
        raise Rejected(f"{path} is there already; --force replaces it") from None
    except OSError as error:
        why = f"{path} cannot be written: {error.strerror}"
        if error.errno in FULL:
            raise Transient(f"{why}; nothing was changed: free some space, then run it again") from error
        raise Rejected(why) from None
    data = {"schema": 1, "path": str(path.resolve())}
    told = f"wrote {path}\nnext: put your topology document in topology.json, then run `failout doctor`"
    emit(data, as_json=as_json, human=lambda: told)


def _write(path: Path, text: str, *, force: bool) -> None:
    """Whole or not at all: written beside it, then put in its place. Raises OSError; FileExistsError without `force`."""
    if not force and os.path.lexists(path):
        raise FileExistsError
    target = path.resolve()  # A link stays one.
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if force:
            if target.exists():
                partial.chmod(stat.S_IMODE(target.stat().st_mode))
            partial.replace(target)
        else:
            target.hardlink_to(partial)  # which fails where another has made one meanwhile
    finally:
        partial.unlink(missing_ok=True)


def document(service: str, policy: DeployPolicy, objective: Objective, drills: DrillPolicy) -> str:
    """The file's text; uncommented it is what Failout does anyway."""
    import json  # noqa: PLC0415

    head = f"""# Failout's settings. Paths are relative to this file; what is commented out is the default. Seconds, shares 0..1.
service: {json.dumps(service)}

# topology: topology.json        # written by the Pulumi programs in infra/, or by `failout lab up`
# releases: releases             # one manifest a version: VERSION.yaml
# state: .failout                # the embedded state: one machine, one process at a time
# database: postgresql://...     # instead of `state`: the state in PostgreSQL
# agent_token_file: agent.token  # bearer token of the region agents; mode 600

{SIGNALS}"""
    lines = _section(drills, DRILLS, "  ")
    lines += ["", "# objective:                     # what proof of a fail-out is good enough (`failout proof`)"]
    lines += _section(objective, OBJECTIVE, "  ")
    lines += ["", "# policy:", *_section(policy, POLICY, "  ")]
    return head + "\n".join(lines) + "\n"


def _section(given: object, meanings: Mapping[str, str], indent: str) -> list[str]:
    lines = []
    for key, meaning in meanings.items():
        value = getattr(given, key)
        if key == "gate":
            lines += [f"# {indent}{key}:  # {meaning}", *_section(value, GATE, f"{indent}  ")]
        elif value is None:
            lines.append(_setting(f"{indent}# {key}", EXAMPLES[key], meaning))
        else:
            lines.append(_setting(f"{indent}{key}", list(value) if isinstance(value, tuple) else value, meaning))
    return lines


def _setting(name: str, value: object, meaning: str) -> str:
    told = str(value).lower() if isinstance(value, bool) else str(value)
    return f"# {name}: {told}  # {meaning}"
