"""`failout deploy --dry-run`: every read and check of a deploy, and no write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.core.errors import FailoutError, Refused

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.operations.planning import Plan


async def rehearse(settings: Settings, version: str) -> dict[str, Any]:
    """Look at everything, then say what would stop a deploy. `told` is for people, the rest schemas/dry-run.json."""
    from orchestrator.cli.doctor import findings, human_findings  # noqa: PLC0415
    from orchestrator.cli.plan import human_plan, plan_json, plan_of  # noqa: PLC0415
    from orchestrator.operations.doctor import as_json  # noqa: PLC0415

    plan = await plan_of(settings, version)
    refusals = [*plan.refusals, *await _refusals(settings, plan)]
    doctor = as_json(settings.service, await findings(settings))
    ok = doctor["ok"] and not refusals
    verdict = "nothing was changed; a deploy would begin" if ok else "nothing was changed; a deploy would not begin"
    lines = [human_findings(doctor), human_plan(plan), *(f"refused: {r}" for r in refusals[len(plan.refusals) :])]
    return {
        "schema": 1,
        "service": settings.service,
        "version": version,
        "ok": ok,
        "refusals": refusals,
        "plan": plan_json(plan),
        "doctor": doctor,
        "told": "\n\n".join([*lines, verdict]),
    }


async def _refusals(settings: Settings, plan: Plan) -> list[str]:
    """What `deploy` itself would refuse for: a freeze, another deploy, no way back."""
    from orchestrator.bootstrap import place_of  # noqa: PLC0415
    from orchestrator.config import ReleaseFolder  # noqa: PLC0415
    from orchestrator.engine.glance import glance_at  # noqa: PLC0415
    from orchestrator.operations.deploys import require_free  # noqa: PLC0415
    from orchestrator.operations.planning import require_way_back  # noqa: PLC0415

    place = place_of(settings)
    told = []
    try:
        if place.file is None or place.file.exists():
            with glance_at(place) as rows:
                require_free(rows, settings.service)
    except FailoutError as error:
        told.append(_rule(error))
    try:
        require_way_back(ReleaseFolder(settings.releases), {z.zone: z.from_version for z in plan.zones})
    except FailoutError as error:
        told.append(_rule(error))
    return told


def _rule(error: FailoutError) -> str:
    return f"{error.rule}: {error}" if isinstance(error, Refused) else str(error)
