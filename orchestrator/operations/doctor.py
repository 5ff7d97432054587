"""What can be known before anything is done: settings, releases, state, clouds, agents and the topology against reality.

Reads and dry runs only. A finding that nobody could make is `unchecked` and says why; it is never counted as well (I2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from orchestrator.core.errors import FailoutError
from orchestrator.core.release import reason_release_is_incomplete
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import STEADY
from orchestrator.engine.glance import glance_at
from orchestrator.engine.place import Place
from orchestrator.engine.ports import EVERY_SERVICE
from orchestrator.ports import Finding, Inspector
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.steering import Steering, told
from orchestrator.workflows.world import Releases, World

SCHEMA: Final = 1


async def examine(world: World, inspectors: Mapping[str, Inspector], versions: Sequence[str]) -> list[Finding]:
    """Everything but the state, which only the engine's neighbours can read. `inspectors` per cloud."""
    findings = releases(world, versions)
    for region in world.topology.regions:
        findings += await inspectors[region.cloud].inspect(region, world.clock.now())
    findings.append(await _global_tier(world))
    gauge = Gauge(world)
    for region in world.topology.regions:
        findings += await _fleets(gauge, region)
    findings.append(await _traffic(world))
    return findings


def attempt(what: str, look: Callable[[], str]) -> Finding:
    """`look` says how it found it, or raises why it is wrong."""
    try:
        return Finding(what, "ok", look())
    except FailoutError as error:
        return Finding(what, "failed", str(error))


def releases(world: World, versions: Sequence[str]) -> list[Finding]:
    """Every manifest can be read and names an image for every region."""
    if not versions:
        return [Finding("releases", "failed", "there is no release manifest")]
    found = []
    for version in versions:
        finding = attempt("release", lambda version=version: _release(world.releases, version))  # type: ignore[misc]
        if finding.verdict == "ok":
            gap = reason_release_is_incomplete(world.releases.get(version), world.topology)
            finding = Finding("release", "failed", gap) if gap else finding
        found.append(finding)
    return found


def _release(manifests: Releases, version: str) -> str:
    release = manifests.get(version)
    return f"{version} pins {len(release.images)} images"


def state(place: Place, service: str) -> list[Finding]:
    """The rows can be read by this version, and the files written by this user. Nothing is created."""
    if place.file is None:
        return [attempt("state", lambda: _rows(place, service))]
    there = next(p for p in (place.file, *place.file.parents) if os.path.exists(p))  # noqa: PTH110 - Path's raises where it may not look
    if not os.access(there, os.W_OK):
        return [Finding("state", "failed", f"{there} cannot be written by this user")]
    if not place.file.exists() or place.file.stat().st_size == 0:
        return [Finding("state", "ok", f"nothing was deployed from {place.file.parent} yet")]
    if place.file.stat().st_mode & 0o077:
        return [Finding("state", "failed", f"others may read {place.file}: chmod 600 it")]
    return [attempt("state", lambda: _rows(place, service))]


def _rows(place: Place, service: str) -> str:
    with glance_at(place) as rows:
        open_runs = rows.unfinished(service)
        switches = [
            switch.name for switch in rows.switches() if switch.on and switch.service in {service, EVERY_SERVICE}
        ]
    running = (
        f"{open_runs[-1].kind} {open_runs[-1].id} is {open_runs[-1].status}" if open_runs else "no run is unfinished"
    )
    return f"{place.file or 'the database'}: {running}" + (f"; on: {', '.join(switches)}" if switches else "")


async def _global_tier(world: World) -> Finding:
    try:
        seen = await world.global_tier.read()
    except FailoutError as error:
        return Finding("global tier", "failed", str(error))
    wanted = {region.id: region.weight for region in world.topology.regions}
    weights = ", ".join(f"{region} {weight}" for region, weight in sorted(seen.weights.items()))
    missing = sorted(set(wanted) - set(seen.weights))
    if missing:
        return Finding("global tier", "failed", f"no record for {', '.join(missing)}; it answers {weights}")
    return Finding("global tier", "ok", f"it answers {weights}")


async def _fleets(gauge: Gauge, region: Region) -> list[Finding]:
    found = [await _fleet(gauge, zone) for zone in region.zones]
    if any(finding.verdict != "ok" for finding in found):
        return [*found, Finding("agent", "unchecked", f"{region.id}: its instances are not all known")]
    return [*found, await _agent(gauge, region)]


async def _fleet(gauge: Gauge, zone: Zone) -> Finding:
    """The fleet is there, as large as the topology says, and its model is a release."""
    try:
        seen = await gauge.fleet(zone)
    except FailoutError as error:
        return Finding("fleet", "failed", str(error))
    has = (
        f"{zone.id}: {len(seen.instances)} of {seen.desired} instances at {seen.model_version or 'an unknown version'}"
    )
    if seen.desired != zone.instances:
        return Finding("fleet", "failed", f"{has}; the topology says {zone.instances}")
    if seen.model_version is None or len(seen.instances) != seen.desired or not all(i.running for i in seen.instances):
        return Finding("fleet", "failed", has)
    return Finding("fleet", "ok", has)


async def _agent(gauge: Gauge, region: Region) -> Finding:
    """The region agent takes our token and reaches every instance of its region."""
    reached = ready = count = 0
    try:
        for zone in region.zones:
            probes = await gauge.probe(zone)
            count += len(probes)
            reached += sum(probe.reachable for probe in probes)
            ready += sum(probe.reachable and probe.ready for probe in probes)
    except FailoutError as error:
        return Finding("agent", "failed", str(error))
    evidence = f"{region.id}: {region.agent_url} reaches {reached} of {count} instances, {ready} ready"
    return Finding("agent", "ok" if count and count == ready else "failed", evidence)


async def _traffic(world: World) -> Finding:
    """What the clouds do with each zone's traffic is what was asked last (drift)."""
    steering = Steering(world)
    try:
        seen, document = await steering.seen(), await steering.document()
    except FailoutError as error:
        return Finding("traffic", "failed", str(error))
    wanted = {
        zone.id: document.zones.get(zone.id, STEADY) for zone in world.topology.zones()
    }  # I8: or it is out silently.
    drifted = [
        f"{zone} is {told(seen[zone])}, asked for {wish.placement}"
        for zone, wish in wanted.items()
        if zone in seen and seen[zone].placement is not wish.placement
    ]
    drifted += [f"nobody says what {zone} gets" for zone in wanted if zone not in seen]
    if drifted:
        return Finding("traffic", "failed", "; ".join(drifted))
    return Finding("traffic", "ok", f"all {len(wanted)} zones are as they were asked to be")


def as_json(service: str, findings: Iterable[Finding]) -> dict[str, Any]:
    """schemas/doctor.json"""
    listed = [{"what": f.what, "verdict": f.verdict, "evidence": f.evidence} for f in findings]
    counts = {verdict: sum(f["verdict"] == verdict for f in listed) for verdict in ("ok", "failed", "unchecked")}
    return {"schema": SCHEMA, "service": service, "ok": counts["failed"] == 0, "counts": counts, "findings": listed}
