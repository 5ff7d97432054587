"""Who gets how many requests right now, and how many of them fail: expectation, not a sample.

Between two changes of the world every rate is constant, so counting is one multiplication per span.
"""

from __future__ import annotations

from orchestrator.sim.truth import (
    BACKEND_POOL,
    RAMP_POOL,
    STEADY_POOL,
    WELL,
    Admin,
    Behaviour,
    Blow,
    Box,
    Flow,
    Ledger,
    Life,
    Physics,
    RegionTruth,
    Target,
)


def passes_probe(box: Box, behaviour: Behaviour) -> bool:
    """What /admit answers to the load balancer's prober."""
    if not box.admitted or not box.listening or box.zone.dark:
        return False
    return box.ready or behaviour.lies


def takes_new(target: Target, box: Box) -> bool:
    """The load balancer sends new traffic here, health aside."""
    return not target.draining and box.admin is not Admin.DOWN


def split(region: RegionTruth) -> tuple[dict[Box, float], float]:
    """Return the share of the region's new traffic per instance, and the share that finds no target."""
    shares: dict[Box, float] = {}
    aws = region.aws
    pools = (STEADY_POOL, RAMP_POOL) if aws else (BACKEND_POOL,)
    weights = {pool: region.weights.get(pool, 0) if aws else 1 for pool in pools}
    total = sum(weights.values())
    if total == 0:
        return shares, 1.0
    unrouted = 0.0
    for pool in pools:
        if not weights[pool]:
            continue
        part = weights[pool] / total
        open_, healthy = [], []
        for zone in region.zones:
            for box in zone.boxes:
                target = box.targets.get(pool)
                if target is not None and takes_new(target, box):
                    open_.append(box)
                    if target.healthy or box.admin is Admin.UP:
                        healthy.append(box)
        if not healthy and aws:
            healthy = open_  # an ALB fails open
        if not healthy:
            unrouted += part
            continue
        each = part / len(healthy)
        for box in healthy:
            shares[box] = shares.get(box, 0.0) + each
    return shares, unrouted


def presence(region: RegionTruth) -> None:
    """Set each zone's presence: the part of its fair traffic that it may get by intent, faults and health aside (I1).

    1 means a whole part per instance, for at least as many instances as the topology promises.
    """
    meant = [box for zone in region.zones for box in zone.boxes if meant_to_serve(box)]
    steady = 0.0
    if region.aws:
        weight = dict.fromkeys(meant, 0.0)
        for pool in (STEADY_POOL, RAMP_POOL):
            members = [box for box in meant if _proven(box, pool)]
            part = region.weights.get(pool, 0) / (len(members) or 1)
            steady = part if pool is STEADY_POOL else steady
            for box in members:
                weight[box] += part
    else:
        weight = dict.fromkeys(meant, 1.0)
    alone = [w for box, w in weight.items() if len(box.targets) == 1]
    whole_part = _whole_part(max(alone or weight.values(), default=0.0), steady)
    for zone in region.zones:
        whole = whole_part * zone.zone.instances
        mine = sum([weight.get(box, 0.0) for box in zone.boxes])
        zone.presence = min(1.0, mine / whole) if whole else 0.0


def _whole_part(most: float, steady: float) -> float:
    """What an instance with its whole part gets; `most` is the largest part of any that stands in one group only.

    On AWS that is what `steady` gives: an instance that joins stands in both groups for a moment and gets more, and so
    does a ramp when another zone is lost, which makes nobody else out. Beyond that the weights are wrong, and the
    others are short.
    """
    return steady if steady > 0.0 and most <= 3.5 * steady else most


def meant_to_serve(box: Box) -> bool:
    """Nobody has taken this instance out: it is not being replaced, drained or refused admission."""
    if box.leaving or not box.admitted or box.admin is Admin.DOWN:
        return False
    for target in box.targets.values():  # noqa: SIM110 - asked of every instance at every change
        if target.proven and not target.draining:
            return True
    return False


def _proven(box: Box, pool: str) -> bool:
    target = box.targets.get(pool)
    return target is not None and target.proven and not target.draining


def fails(box: Box, behaviour: Behaviour) -> float:
    """The share of requests to this instance that users lose."""
    if box.life is not Life.RUNNING or not box.listening or box.zone.dark or not box.ready or behaviour.lies:
        return 1.0
    return min(1.0, behaviour.error_share + box.zone.blows.get(Blow.GRAY, 0.0))


def slow(box: Box, behaviour: Behaviour) -> bool:
    return behaviour.added_ms > 0.0 or Blow.SLOW in box.zone.blows


def cause(box: Box, behaviour: Behaviour) -> str:
    """Why requests to this instance fail: the first that applies."""
    if box.zone.blows or box.lost_to_fault:
        return "fault"
    if behaviour.error_share or behaviour.lies or not behaviour.ready or not behaviour.boots:
        return "version"
    return "act"


def spread(
    region: RegionTruth, total_rps: float, now_s: float, physics: Physics, versions: dict[str, Behaviour]
) -> None:
    """Recompute every rate of the region."""
    shares, unrouted = split(region)
    region.shares = shares
    region.rps = total_rps * region.share
    region.unrouted_rps = region.rps * unrouted
    region.flows = []
    for zone in region.zones:
        zone.rps, zone.serving = 0.0, 0
        for box in zone.boxes:
            fresh = region.rps * shares.get(box, 0.0)
            if fresh > 0.0:
                box.tail_rps = box.tail_until_s = 0.0
            else:
                _fade(region, box, now_s, physics)
            box.rps = fresh + box.tail_rps
            if box.rps:
                flow = _flow(box, versions[box.version])
                region.flows.append(flow)
                zone.rps += box.rps
                zone.serving += flow.fail_share < 1.0
    presence(region)
    region.dirty = False


def _flow(box: Box, behaviour: Behaviour) -> Flow:
    over_rps = max(0.0, box.rps - box.zone.zone.rps_per_instance)
    untouched = not box.zone.blows and not box.lost_to_fault and box.life is Life.RUNNING
    if untouched and behaviour is WELL and box.ready and box.listening:
        return Flow(box, box.rps, 0.0, over_rps, "act", slow=False)  # most of them, most of the time
    return Flow(box, box.rps, fails(box, behaviour), over_rps, cause(box, behaviour), slow(box, behaviour))


def _fade(region: RegionTruth, box: Box, now_s: float, physics: Physics) -> None:
    """When new traffic stops, what is under way goes on, and on Azure whole connections do."""
    if box.rps > 0.0 and box.tail_until_s == 0.0:
        box.busy_until_s = now_s + physics.longest_request_s
        if not region.aws and box.listening:
            box.tail_rps = box.rps / 2
            box.tail_until_s = now_s + physics.connection_life_s
    if box.tail_until_s and not box.admitted:
        box.tail_until_s = min(box.tail_until_s, now_s + physics.close_s)
    if box.tail_until_s:
        box.busy_until_s = box.tail_until_s
    if box.tail_until_s <= now_s:
        box.tail_rps, box.tail_until_s = 0.0, 0.0


def account(region: RegionTruth, now_s: float, ledger: Ledger) -> None:
    """Count what has flowed since the last count, at the rates of the last `spread`."""
    seconds, region.counted_s = now_s - region.counted_s, now_s
    if seconds <= 0.0:
        return
    if region.unrouted_rps:
        ledger.harmed["fault" if any(zone.blows for zone in region.zones) else "act"] += region.unrouted_rps * seconds
    for flow in region.flows:
        sent = flow.rps * seconds
        failed = sent * flow.fail_share
        box = flow.box
        box.requests += sent
        box.errors += failed
        if flow.slow:
            box.slow_requests += sent
        ledger.served += sent - failed
        if failed:
            ledger.harmed[flow.cause] += failed
        elif flow.over_rps:
            ledger.harmed["overload"] += flow.over_rps * seconds
