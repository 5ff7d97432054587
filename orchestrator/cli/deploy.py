"""`failout deploy`: start a deploy and carry it in this process, or carry on with the one that was interrupted."""

from __future__ import annotations

import asyncio
import functools
import random
import secrets
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, glance, options, seconds
from orchestrator.cli.status import human_run
from orchestrator.core.errors import Refused, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config import Settings
    from orchestrator.engine.carry import Log
    from orchestrator.engine.ports import Run
    from orchestrator.engine.store import SqlStore
    from orchestrator.workflows.world import World

# What the process ends with, beyond the error codes of core.errors.
NOT_SUCCEEDED: Final = 10
HELD: Final = 11
SILENCE_S: Final = 2.0


@click.command("deploy")
@click.option("--to", "version", help="The version, as its release manifest names it.")
@click.option("--resume", is_flag=True, help="Carry on with the unfinished deploy instead of starting one.")
@click.option("--yes", is_flag=True, help="Do not ask after showing the plan.")
@click.option("--dry-run", is_flag=True, help="Do every read and check, write nothing, and say what would happen.")
@click.option(
    "--override", multiple=True, help="Skip this rule (I2, I3, I14) with your name and --reason in the audit log."
)
@click.option(
    "--on-failure",
    type=click.Choice(["hold", "rollback-zone", "rollback-all"]),
    help="What to do with a zone whose upgrade fails; default: policy.on_failure of failout.yaml.",
)
@click.option("--reason", type=REASON, default="release", show_default=True, help="Why; it goes into the records.")
@click.option(
    "--log", type=click.Choice(["human", "json", "none"]), default="human", show_default=True, help="On stderr."
)
@config_option
@options
def command(
    version: str | None,
    override: tuple[str, ...],
    on_failure: str | None,
    reason: str,
    log: str,
    config: Path | None,
    *,
    resume: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Deploy a version: fail out one zone at a time, upgrade it, verify it, bring it back in steps, bake, go on.

    Ends with 0 when it succeeded, 10 when it was rolled back, aborted or failed, 11 when it is held for a person.
    Killed at any moment, it leaves traffic where it is; `failout deploy --resume` goes on.
    """
    from orchestrator.config import read_settings  # noqa: PLC0415

    if (version is None) is not resume or (dry_run and version is None):
        raise Rejected("say either --to VERSION, with or without --dry-run, or --resume")
    if override and (reason == "release" or version is None):
        raise Rejected("--override goes with --to VERSION and a --reason of its own")
    if on_failure is not None and version is None:
        raise Rejected("--on-failure goes with --to VERSION: a run keeps the policy that it began with")
    settings = _with_on_failure(read_settings(find_config(config)), on_failure)
    if dry_run:
        assert version is not None
        from orchestrator.cli.dry_run import rehearse  # noqa: PLC0415

        data = asyncio.run(rehearse(settings, version))
        told = str(data.pop("told"))
        emit(data, as_json=as_json, human=lambda: told)
        sys.exit(0 if data["ok"] else Refused.exit_code)
    _require_sound_input(settings, config, version, override)
    if version is not None and not yes:
        _confirm(settings, version)
    from orchestrator.cli.logs import logger  # noqa: PLC0415

    run = asyncio.run(_deploy(settings, version, reason, override, logger(log), quiet=log != "human"))
    data = _report(settings, run)
    emit(data, as_json=as_json, human=lambda: human_run(data))
    sys.exit(0 if run.status == "succeeded" else HELD if run.status == "held" else NOT_SUCCEEDED)


def _with_on_failure(settings: Settings, on_failure: str | None) -> Settings:
    from orchestrator.core.policy import OnFailure  # noqa: PLC0415

    if on_failure is None:
        return settings
    return replace(settings, policy=replace(settings.policy, on_failure=OnFailure(on_failure)))


def _require_sound_input(
    settings: Settings, config: Path | None, version: str | None, override: tuple[str, ...]
) -> None:
    """What can be told without touching anything: wrong input leaves no state file behind."""
    from orchestrator.config import ReleaseFolder, read_topology  # noqa: PLC0415
    from orchestrator.operations.deploys import OVERRIDABLE, require_free  # noqa: PLC0415
    from orchestrator.operations.outings import require_overridable  # noqa: PLC0415
    from orchestrator.operations.planning import require_whole  # noqa: PLC0415

    if version is None:
        glance(config, lambda rows, service: rows.runs(service, 1))  # NotFound: nothing was deployed from here yet
        return
    require_whole(ReleaseFolder(settings.releases).get(version), read_topology(settings.topology, settings.service))
    require_overridable(override, OVERRIDABLE)
    glance(config, lambda rows, service: require_free(rows, service, override), lambda _: None)


def _confirm(settings: Settings, version: str) -> None:
    from orchestrator.cli.plan import human_plan, plan_of  # noqa: PLC0415

    if not sys.stdin.isatty():
        raise Rejected("nobody is there to ask: add --yes to deploy without a question")
    plan = asyncio.run(plan_of(settings, version))
    click.echo(human_plan(plan), err=True)
    click.confirm("Deploy?", abort=True, err=True)


async def _deploy(
    settings: Settings, version: str | None, reason: str, override: tuple[str, ...], log: Log, *, quiet: bool
) -> Run:
    """Carry the deploy here, or follow it where `failout serve` carries it."""
    from orchestrator.bootstrap import open_orchestrator, place_of, reading_world  # noqa: PLC0415
    from orchestrator.engine.place import Served  # noqa: PLC0415
    from orchestrator.engine.store import SqlStore  # noqa: PLC0415

    teller = Teller(log)
    begin = functools.partial(_begin, settings, version, reason, override)
    try:
        async with open_orchestrator(settings, teller) as (engine, world):
            run = await begin(engine.store, world, teller)
            await engine.start_run(run.id)
            teller("carrying", run=run.id, evidence=f"to {version}" if version else "resumed")
            ending = asyncio.create_task(engine.await_run(run.id))
            resumed, waits = version is None, world.waits
            return await _ended_or_held(engine.store, run.id, ending, teller, resumed=resumed, quiet=quiet, waits=waits)
    except Served:
        store = SqlStore(place_of(settings))
        try:
            run = await begin(store, reading_world(settings, teller), teller)
            teller("following", run=run.id, evidence="`failout serve` carries it")
            return await _ended_or_held(store, run.id, None, teller, resumed=version is None, quiet=quiet)
        finally:
            store.close()


async def _begin(
    settings: Settings,
    version: str | None,
    reason: str,
    override: tuple[str, ...],
    store: SqlStore,
    world: World,
    teller: Teller,
) -> Run:
    from orchestrator.operations.deploys import start_deploy, unfinished_deploy  # noqa: PLC0415
    from orchestrator.workflows.polling import Patience  # noqa: PLC0415

    if version is None:
        return await unfinished_deploy(store, settings.service)
    now = datetime.now(UTC)
    name = f"deploy-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return await start_deploy(
        store,
        world,
        settings.policy,
        version,
        run=name,
        author=author(),
        reason=reason,
        now=now,
        overrides=tuple(sorted(set(override))),
        patience=Patience.begin(world.clock, random.random, lambda why: teller("waiting", evidence=why)),
    )


async def _ended_or_held(
    store: SqlStore,
    run_id: str,
    ending: asyncio.Task[Run] | None,
    teller: Teller,
    *,
    resumed: bool,
    quiet: bool,
    waits: Mapping[str, str] | None = None,
) -> Run:
    """Wait for the end, or until a person must choose. A resumed run gets a moment to take the orders that wait for it.

    `ending` raises what a carrier in this process gave up with.
    """
    grace_until = time.monotonic() + (2.0 if resumed else 0.0)
    try:
        while True:
            run = await store.load(run_id)
            ordered = bool((await store.pending(run_id)).orders)
            if run.finished or (run.status == "held" and not ordered and time.monotonic() > grace_until):
                return run
            if ending is not None and ending.done():
                return ending.result()
            if not quiet and time.monotonic() - teller.last >= SILENCE_S:
                await _progress(teller, store, run, waits)
            await asyncio.sleep(0.1)
    finally:
        if ending is not None:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)


class Teller:
    """Passes log lines on and knows when the last one was."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.last = time.monotonic()

    def __call__(self, event: str, /, **fields: Any) -> None:  # noqa: ANN401
        self.last = time.monotonic()
        self._log(event, **fields)


async def _progress(teller: Teller, store: SqlStore, run: Run, waits: Mapping[str, str] | None) -> None:
    """Progress on anything longer than two seconds; says so when a phase takes longer than three of four did before."""
    from orchestrator.cli.carrying import progress  # noqa: PLC0415

    took = (datetime.now(UTC) - run.updated_at).total_seconds()
    usual = (await store.usual(run.service)).get(run.effect.kind) if run.effect else None
    late = f", longer than usual (p75 {seconds(usual.p75_s)})" if usual and took > usual.p75_s else ""
    await progress(store, run, teller, waits, late)


def _report(settings: Settings, run: Run) -> dict[str, Any]:
    from orchestrator.bootstrap import place_of  # noqa: PLC0415
    from orchestrator.engine.glance import glance_at  # noqa: PLC0415
    from orchestrator.operations.status import describe_run, zone_phases  # noqa: PLC0415

    with glance_at(place_of(settings)) as glance:
        phases = zone_phases(glance.events(run.id))
        data = describe_run(run, glance.usual(settings.service), datetime.now(UTC))
    return {"schema": 1, "service": settings.service, **data, "phases": phases}
