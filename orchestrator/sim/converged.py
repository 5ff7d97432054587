"""What is demanded once all faults have healed and everybody has ended: nothing is left as it should not be (I8, I11)."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.deploy import DeployState, ZoneProgress
from orchestrator.core.deploy_table import FINISHED, RunStatus
from orchestrator.core.outing_table import Stage
from orchestrator.core.traffic import STEADY
from orchestrator.sim.checkers import Violation
from orchestrator.sim.drills import Drills
from orchestrator.sim.moves import Moves
from orchestrator.sim.scenario import Scenario
from orchestrator.sim.scheduler import at_once
from orchestrator.sim.truth import WELL, Life, healed
from orchestrator.sim.world import World


def unconverged(state: DeployState, scene: Scenario, world: World, drills: Drills, moves: Moves) -> Iterator[Violation]:
    """Everything that is not as it should be. A sick version on hold is a named hold: a person must choose."""

    def late(zone: str, what: str) -> Violation:
        return Violation(world.now_s, "converges", zone, what)

    named = _left_to_a_person(state, world, drills)
    for place, what in _unended(drills, moves, named):
        yield late(place, what)
    if state.status not in FINISHED:
        active = state.active_zone()
        if state.status is not RunStatus.HELD or scene.target == WELL or active is None:
            told = f"{active.zone} is {active.state}: {active.note}" if active else state.reason
            yield late("", f"never ended: {state.status}; {told}")
        return
    for wrong in _wrong_end(state, scene):
        yield late("", wrong)
    store, service = drills.outings.store, scene.topology.service
    if any(lease.zone not in named for lease in at_once(store.leases(service))):
        yield late("", "a lease is left")
    if not named and world.dns_weights != {region.id: region.weight for region in scene.topology.regions}:
        yield late("", f"region weights are left at {world.dns_weights}")
    traffic = at_once(store.load_traffic(service))
    for progress in (zone for zone in state.zones if zone.zone not in named):
        if traffic and traffic.zones.get(progress.zone, STEADY) != STEADY:
            yield late(progress.zone, f"is wanted {traffic.zones[progress.zone].placement}")
        for wrong in _wrong_with(progress, state, scene, world):
            yield late(progress.zone, wrong)


def _left_to_a_person(state: DeployState, world: World, drills: Drills) -> set[str]:
    """Zones that an outing holds out with a sick version, which an abort left there: only another deploy mends them."""
    if state.status not in {RunStatus.ABORTED, RunStatus.FAILED}:
        return set()
    held = [drills.outings.state(run) for run in drills.outings.unfinished()]
    out = {outing.zone for outing in held if outing.stage is Stage.HELD_OUT}
    return {z for z in out if any(world.versions[box.version] != WELL for box in world.zones[z].boxes)}


def _unended(drills: Drills, moves: Moves, named: set[str]) -> Iterator[tuple[str, str]]:
    """Where something is that people or drills began, and what; `named` holds are not."""
    for run in drills.outings.unfinished():
        outing = drills.outings.state(run)
        if outing.zone not in named:
            yield outing.zone, f"{run.id} never ended: {outing.stage}, {outing.reason}"
    for run in moves.unfinished():
        move = moves.state(run)
        yield move.place, f"{run.id} never ended: {move.phase}, {move.reason}"
    for run in drills.unfinished():
        drill = drills.state(run)
        yield drill.wish.place, f"{run.id} never ended: {drill.phase}, {drill.reason}"


def _wrong_end(state: DeployState, scene: Scenario) -> Iterator[str]:
    """A sick version arrived, or a well one did not."""
    succeeded = state.status is RunStatus.SUCCEEDED
    if succeeded and state.target == "v2" and scene.target != WELL and "I2" not in state.overrides:
        yield f"{state.target} is sick and runs everywhere"
    if not succeeded and _nothing_against_it(scene):
        yield f"{state.target} is well, nobody said anything, and the deploy {state.status}: {state.reason}"


def _nothing_against_it(scene: Scenario) -> bool:
    """Nothing goes wrong but calls and the orchestrator itself, and nobody says anything: a well version arrives."""
    troubles = (scene.strikes, scene.loads, scene.commands, scene.switches, scene.zone_orders, scene.region_orders)
    others = (scene.signals, scene.cuts, scene.jumps, scene.full, scene.hands, scene.away, scene.attention)
    # Nor are clouds and agents slow beyond every time limit.
    return scene.target == WELL and healed(scene.physics) == scene.physics and not any((*troubles, *others))


def _wrong_with(progress: ZoneProgress, state: DeployState, scene: Scenario, world: World) -> Iterator[str]:
    zone = world.zones[progress.zone]
    versions = {box.version for box in zone.boxes}
    ran = ", ".join(sorted(versions))
    if zone.presence < 1.0:
        yield f"is left out, presence {zone.presence:.2f}"
    # An abort touches no zone that is done, nor does a run that failed: a version that dies there goes on to.
    sick = any(world.versions[version] != WELL for version in versions)
    well = all(box.life is Life.RUNNING and box.listening for box in zone.boxes)
    well = well or (sick and state.status in {RunStatus.ABORTED, RunStatus.FAILED})
    if len(versions) != 1 or not well:
        yield f"runs {ran}, well: {well}"
    # Two zones out at once: what was prepared for one is what the other found, and may stay.
    surplus = len(zone.boxes) > zone.zone.instances and scene.beside_each_other
    if len(zone.boxes) != zone.zone.instances and not surplus:
        yield f"has {len(zone.boxes)} instances"
    if not zone.repairs:
        yield "its repairs are left frozen"
    if state.status is RunStatus.SUCCEEDED and versions != {state.target}:
        yield f"runs {ran}, not {state.target}"
