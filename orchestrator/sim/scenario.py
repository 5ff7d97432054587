"""What a history starts from: a topology, users, versions, and what shall go wrong. Drawn from a seed, or written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

from orchestrator.core.health import GatePolicy
from orchestrator.core.policy import DeployPolicy, OnExpiry, OnFailure
from orchestrator.core.topology import GlobalTier, Region, Topology, Zone
from orchestrator.engine.ports import SwitchName
from orchestrator.operations.outings import OVERRIDABLE
from orchestrator.operations.regions import OVERRIDABLE as REGION_OVERRIDABLE
from orchestrator.sim.faults import STATE, Fault
from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.signals import SIGNALS, SignalTurn
from orchestrator.sim.truth import WELL, Behaviour, Blow, Physics

BRISK = DeployPolicy(
    ramp_step_s=4.0,
    bake_s=5.0,
    load_window_s=2.0,
    poll_s=1.0,
    admit_timeout_s=30.0,
    prepare_timeout_s=60.0,
    drain_timeout_s=60.0,
    upgrade_timeout_s=150.0,
    verify_timeout_s=30.0,
    gate=GatePolicy(samples_min=30),
)


@dataclass(frozen=True, slots=True)
class Strike:
    """A blow to a zone: it lasts `seconds`, `hard` is the share of errors of a gray one."""

    at_s: float
    zone: str
    blow: Blow
    seconds: float
    hard: float = 1.0


@dataclass(frozen=True, slots=True)
class Command:
    """A person's order to the run."""

    at_s: float
    kind: str
    target: str = ""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Switching:
    """A person turns the freeze or the kill switch on or off."""

    at_s: float
    name: SwitchName
    on: bool


@dataclass(frozen=True, slots=True)
class Cut:
    """The orchestrator cannot reach a region: its clouds' APIs and its agent. `one_way`: only answers are lost. Or its STATE."""

    at_s: float
    region: str
    seconds: float
    one_way: bool = False


@dataclass(frozen=True, slots=True)
class Hand:
    """Somebody uses a cloud's console: the zone gets all of its traffic, whatever Failout has in hand there."""

    at_s: float
    zone: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """One history's world. `rates` are chances per call, 0..1; `plan` says what befalls the n-th call, from 1."""

    topology: Topology
    users_rps: float
    physics: Physics = field(default_factory=Physics)
    policy: DeployPolicy = BRISK
    target: Behaviour = WELL
    rates: Mapping[Fault, float] = field(default_factory=dict)
    plan: Mapping[int, Fault] = field(default_factory=dict)
    strikes: tuple[Strike, ...] = ()
    commands: tuple[Command, ...] = ()
    loads: tuple[tuple[float, float], ...] = ()  # (at_s, users_rps)
    switches: tuple[Switching, ...] = ()
    zone_orders: tuple[ZoneOrder, ...] = ()  # in order of time
    region_orders: tuple[RegionOrder, ...] = ()  # in order of time
    signals: tuple[SignalTurn, ...] = ()
    cuts: tuple[Cut, ...] = ()
    jumps: tuple[tuple[float, float], ...] = ()  # (at_s, seconds by which the wall clock is wrong from then on)
    deaths: tuple[tuple[float, Fault], ...] = ()  # (at_s, KILL_BEFORE or STALL), whatever the carrier is doing
    full: tuple[str, ...] = ()  # zones whose cloud has no room for more instances
    hands: tuple[Hand, ...] = ()
    away: str = ""  # this zone was taken out by hand, behind Failout's back, before the run began
    away_until_s: float = 60.0
    deploy_at_s: float = 0.0  # when the deploy is asked for: a drill may be under way by then
    reconciles: bool = False  # every carrier keeps the clouds as the document says beside it, as `failout serve` does
    attention: float = 0.0  # chance that somebody says something when a run moves, 0..1
    restart_s: float = 2.0  # from the death of a carrier to the next
    trouble_ends_s: float = 400.0  # from here on nothing goes wrong any more

    @property
    def calm(self) -> bool:
        """Nothing but the calls and the orchestrator itself goes wrong: then no user may notice anything."""
        forced = any(order.kind == "evacuate" or order.overrides for order in self.zone_orders)
        return not (self.strikes or self.loads or forced) and self.target == WELL

    @property
    def beside_each_other(self) -> bool:
        """Two zones may be out at once: a person says so, whatever I1 says, or one is dead and evacuated."""
        named = [*(order.overrides for order in self.zone_orders), *(order.overrides for order in self.region_orders)]
        against = any("I1" in rules for rules in named)
        return against or any(order.kind == "evacuate" for order in self.zone_orders)


def make_topology(regions: Mapping[str, int], *, instances: int = 3, rps_per_instance: float = 40.0) -> Topology:
    """Build a topology of `regions` ("aws/us-east-1" -> number of zones), all alike."""
    return Topology(
        "gates",
        tuple(_region(region, zones, instances, rps_per_instance) for region, zones in regions.items()),
        GlobalTier("route53", 5.0, "gates.lab."),
    )


def _region(region_id: str, zones: int, instances: int, rps_per_instance: float) -> Region:
    cloud, name = region_id.split("/")
    names = [f"{name}{'abcdef'[i]}" if cloud == "aws" else f"{name}-{i + 1}" for i in range(zones)]
    return Region(
        region_id,
        cloud,
        name,
        100,
        tuple(Zone(f"{cloud}/{n}", cloud, region_id, n, instances, 3 * instances, rps_per_instance) for n in names),
        agent_url="",
    )


def two_clouds() -> Topology:
    """Six zones, eighteen instances: the demo's topology."""
    return make_topology({"aws/us-east-1": 3, "azure/eastus": 3})


def good_deploy() -> Scenario:
    return Scenario(two_clouds(), users_rps=300.0)


_CALL_FAULTS = (
    Fault.LOST_REPLY,
    Fault.NOT_DONE,
    Fault.THROTTLED,
    Fault.DUPLICATE,
    Fault.HALF_WAY,
    Fault.STALE,
    Fault.SLOW,
)
_SWITCHES: tuple[SwitchName, ...] = ("freeze", "kill")
ORDERS = ("pause", "resume", "abort", "rollback", "retarget", "suspend")
ZONE_ORDERS = ("restore", "evacuate", "extend", "pause", "resume")
RECONCILED = 0.25  # of all histories
_RARE = ("denied", "long", "deserted", "full", "cut", "told")
_KILLS = (Fault.KILL_BEFORE, Fault.KILL_INSIDE, Fault.KILL_AFTER, Fault.STALL)
_SICK = (
    Behaviour(boots=False),
    Behaviour(ready=False),
    Behaviour(lies=True),
    Behaviour(error_share=0.2),
    Behaviour(error_share=0.05),
    Behaviour(added_ms=150.0),
    Behaviour(dies_after_s=6.0),
    Behaviour(dies_after_s=16.0),
)


def swarm(seed: int) -> Scenario:
    """Draw a scenario: each history has only some of the troubles, so that rare combinations are not drowned."""
    random = Random(seed)
    topology = _draw_topology(random)
    zones = [zone.id for zone in topology.zones()]
    smallest = min(sum(zone.instances * zone.rps_per_instance for zone in region.zones) for region in topology.regions)
    users_rps = smallest * len(topology.regions) * random.uniform(0.1, 0.6)  # every region gets the same
    scenario = Scenario(topology, users_rps, physics=_draw_physics(random))
    if random.random() < 0.6:
        chosen = random.sample(_CALL_FAULTS, random.randint(1, 4))
        scenario = replace(scenario, rates=dict.fromkeys(chosen, random.choice((0.005, 0.02, 0.06))))
    if random.random() < 0.5:
        kills = random.sample(_KILLS, random.randint(1, 3))
        scenario = replace(scenario, rates={**scenario.rates, **dict.fromkeys(kills, random.choice((0.002, 0.01)))})
    if random.random() < 0.25:
        policy = replace(BRISK, on_failure=random.choice(list(OnFailure)))
        scenario = replace(scenario, target=random.choice(_SICK), policy=policy)
    scenario = _draw_blows(random, scenario, zones)
    scenario = _draw_people(random, scenario)
    if random.random() < 0.3:
        scenario = replace(scenario, zone_orders=_draw_outings(random, zones))
    scenario = _draw_rare(random, scenario) if random.random() < 0.3 else scenario
    scenario = _draw_drills(Random(f"{seed} drills"), _draw_more(Random(f"{seed} more"), scenario))
    scenario = _draw_away(Random(f"{seed} state"), scenario)
    scenario = _draw_regions(Random(f"{seed} regions"), _draw_hands(Random(f"{seed} reconciler"), scenario))
    return _draw_expiry(Random(f"{seed} expiry"), scenario)


def _draw_away(random: Random, scenario: Scenario) -> Scenario:
    """The store is restarted, or its disk is full for a while: shorter than a carrier is patient."""
    if random.random() >= 0.1:
        return scenario
    cut = Cut(random.uniform(0, 200), STATE, random.uniform(0.2, 30.0))
    return replace(scenario, cuts=(*scenario.cuts, cut))


def _draw_blows(random: Random, scenario: Scenario, zones: list[str]) -> Scenario:
    """What befalls the world: zones, the way to a region, load, clocks, what somebody did by hand."""
    if random.random() < 0.3:
        blow = random.choice(list(Blow))
        strike = Strike(random.uniform(0, 150), random.choice(zones), blow, random.uniform(5, 60), 0.3)
        scenario = replace(scenario, strikes=(strike,))
    if random.random() < 0.12:
        region = random.choice(scenario.topology.regions).id
        cut = Cut(random.uniform(0, 150), region, random.uniform(2, 50), one_way=random.random() < 0.5)
        scenario = replace(scenario, cuts=(cut,))
    if random.random() < 0.15:
        rises = sorted(random.uniform(0, 150) for _ in range(random.randint(1, 3)))
        loads = tuple((at_s, scenario.users_rps * random.uniform(0.5, 1.6)) for at_s in rises)
        scenario = replace(scenario, loads=loads)
    if random.random() < 0.1:
        jumps = ((random.uniform(0, 150), random.choice((-3600.0, -30.0, 30.0, 86400.0))),)
        scenario = replace(scenario, jumps=jumps)
    if random.random() < 0.05:
        scenario = replace(scenario, full=(random.choice(zones),))
    if random.random() < 0.05:
        scenario = replace(scenario, away=random.choice(zones), away_until_s=random.uniform(5, 60))
    return scenario


def _draw_people(random: Random, scenario: Scenario) -> Scenario:
    """Orders and switches at random times."""
    if random.random() < 0.3:
        kinds = random.choices(ORDERS, k=random.randint(1, 4))
        commands = tuple(Command(random.uniform(0, 150), kind, "v3") for kind in kinds)
        scenario = replace(scenario, commands=tuple(sorted(commands, key=lambda c: c.at_s)))
    if random.random() < 0.12:
        at_s, name = random.uniform(0, 150), random.choice(_SWITCHES)
        back_s = at_s + random.uniform(5, 90)
        scenario = replace(scenario, switches=(Switching(at_s, name, on=True), Switching(back_s, name, on=False)))
    return scenario


def _draw_outings(random: Random, zones: list[str]) -> tuple[ZoneOrder, ...]:
    """One or two zones are taken out on purpose, and what people say to that afterwards, in any order."""
    orders = []
    for zone in random.sample(zones, random.randint(1, 2)):
        at_s = random.choice((random.uniform(0, 3), random.uniform(0, 150), random.uniform(150, 300)))
        kind = random.choice(("drain", "drain", "evacuate"))
        overrides = tuple(random.sample(OVERRIDABLE, 1)) if random.random() < 0.2 else ()
        drill = kind == "drain" and random.random() < 0.3
        on_expiry = random.choice(list(OnExpiry))
        orders.append(ZoneOrder(at_s, kind, zone, random.uniform(20, 120), on_expiry, overrides, drill))
        for _ in range(random.randint(0, 3)):
            at_s += random.uniform(0, 40)
            orders.append(ZoneOrder(at_s, random.choice(ZONE_ORDERS), zone, random.uniform(20, 120)))
    return tuple(sorted(orders, key=lambda order: order.at_s))


def _draw_rare(random: Random, scenario: Scenario) -> Scenario:
    """One trouble that lasts longer or comes thicker than the others, so that few histories see it, but some do."""
    zone = random.choice([zone.id for zone in scenario.topology.zones()])
    at_s = random.uniform(0, 100)
    match random.choice(_RARE):
        case "denied":
            rates = {**scenario.rates, Fault.DENIED: random.choice((0.005, 0.02))}
            return _told_much(random, replace(scenario, rates=rates), zone)
        case "long":
            strike = Strike(at_s, zone, random.choice((Blow.DEAD, Blow.DARK)), random.uniform(60, 250))
            return _told_much(random, replace(scenario, strikes=(*scenario.strikes, strike)), zone)
        case "deserted":
            loads = ((at_s, scenario.users_rps * 0.02), (at_s + random.uniform(20, 90), scenario.users_rps))
            return replace(scenario, loads=(*scenario.loads, *loads))
        case "full":
            full = tuple(zone.id for zone in scenario.topology.zones())
            rises = (at_s, scenario.users_rps * random.uniform(1.2, 1.6))
            return _told_much(random, replace(scenario, full=full, loads=(*scenario.loads, rises)), zone)
        case "cut":
            region = scenario.topology.region_of(zone).id
            cut = Cut(at_s, region, random.uniform(40, 150), one_way=random.random() < 0.3)
            return _told_much(random, replace(scenario, cuts=(*scenario.cuts, cut)), zone)
        case _:
            return _told_much(random, scenario, zone)


def _told_much(random: Random, scenario: Scenario, zone: str) -> Scenario:
    """People who say one thing after the other, to the run or about one zone."""
    if random.random() < 0.5:
        times = sorted(random.uniform(0, 250) for _ in range(random.randint(3, 8)))
        commands = [Command(at_s, random.choice(ORDERS), random.choice(("v2", "v3"))) for at_s in times]
        both = sorted((*scenario.commands, *commands), key=lambda command: command.at_s)
        return replace(scenario, commands=tuple(both))
    at_s, orders = random.choice((random.uniform(0, 3), random.uniform(0, 200))), list(scenario.zone_orders)
    kinds = [random.choice(("drain", "evacuate")), *random.choices(ZONE_ORDERS, k=random.randint(3, 8))]
    for kind in kinds:
        lasts_s = random.uniform(20, 120)
        lent = kind == "resume" and lasts_s > 70.0
        orders.append(ZoneOrder(at_s, "release" if lent else kind, zone, lasts_s, random.choice(list(OnExpiry))))
        at_s += random.choice((random.uniform(0, 3), random.uniform(0, 30)))
    return replace(scenario, zone_orders=tuple(sorted(orders, key=lambda order: order.at_s)))


def _draw_more(random: Random, scenario: Scenario) -> Scenario:
    """Every fourth history: people who watch, and worlds in which what is rare elsewhere comes together."""
    if random.random() >= 0.25:
        return scenario
    if random.random() < 0.6:
        scenario = replace(scenario, attention=random.choice((0.05, 0.15, 0.3)))
    if random.random() < 0.5:
        return _draw_bodies(random, scenario)
    zone = random.choice([zone.id for zone in scenario.topology.zones()])
    return _draw_return(random, scenario, zone)


def _draw_bodies(random: Random, scenario: Scenario) -> Scenario:
    """Clouds and agents that are slow beyond every time limit, until all heals."""
    physics, policy = scenario.physics, replace(scenario.policy, on_failure=random.choice(list(OnFailure)))
    match random.choice(("lingering", "gives up", "slow agent", "slow boot")):
        case "lingering":  # requests, or connections, that never end
            lingers_s = random.uniform(40, 120)
            endless = {"connection_life_s": 2 * lingers_s, "close_s": lingers_s, "deregistration_s": lingers_s}
            return replace(scenario, physics=replace(physics, **endless))
        case "gives up":
            physics = replace(physics, replace_give_up_s=random.uniform(3, 25))
            return replace(scenario, physics=physics, policy=policy)
        case "slow agent":
            return replace(scenario, physics=replace(physics, synthetic_s=random.uniform(0.02, 0.06)))
        case _:
            rise = (random.uniform(0, 60), scenario.users_rps * random.uniform(1.0, 1.4))
            physics = replace(physics, boot_s=random.uniform(10, 40))
            return replace(scenario, physics=physics, loads=(*scenario.loads, rise))


def _draw_return(random: Random, scenario: Scenario, zone: str) -> Scenario:
    """A zone leaves and comes back, and meanwhile something befalls it, its region, or the load."""
    at_s = random.choice((random.uniform(0, 3), random.uniform(0, 150)))
    lasts_s, on_expiry = random.uniform(20, 80), random.choice(list(OnExpiry))
    leaves = ZoneOrder(at_s, random.choice(("drain", "evacuate")), zone, lasts_s, on_expiry)
    back_s = at_s + random.uniform(2, 60)
    orders = (*scenario.zone_orders, leaves, ZoneOrder(back_s, "restore", zone))
    scenario = replace(scenario, zone_orders=tuple(sorted(orders, key=lambda order: order.at_s)))
    match random.choice(("blow", "blow", "cut", "ebb")):
        case "blow":
            blow, struck_s = random.choice(list(Blow)), random.choice((at_s, back_s)) + random.uniform(-5, 25)
            strike = Strike(max(0.0, struck_s), zone, blow, random.uniform(5, 70), random.uniform(0.1, 1.0))
            return replace(scenario, strikes=(*scenario.strikes, strike))
        case "cut":
            cut_s = max(0.0, random.choice((at_s, back_s)) + random.uniform(-5, 15))
            cut = Cut(cut_s, scenario.topology.region_of(zone).id, random.uniform(25, 90))
            return replace(scenario, cuts=(*scenario.cuts, cut))
        case _:
            times = sorted(back_s + random.uniform(0, 40) for _ in range(random.randint(1, 4)))
            loads = [(t_s, scenario.users_rps * (0.02, 1.0)[i % 2]) for i, t_s in enumerate(times)]
            return replace(scenario, loads=(*scenario.loads, *loads))


def _draw_drills(random: Random, scenario: Scenario) -> Scenario:
    """Drills that are under way when the deploy is asked for, and signals that turn bad, or silent."""
    if random.random() >= 0.15:
        return scenario
    zones = [zone.id for zone in scenario.topology.zones()]
    kind = random.choice(("drain", "drain", "evacuate", "schedule"))
    drill = ZoneOrder(random.uniform(0, 5), kind, random.choice(zones), random.uniform(30, 240), drill=True)
    orders = [*scenario.zone_orders, drill]
    if random.random() < 0.3:
        orders.append(ZoneOrder(drill.at_s + random.uniform(0, 60), "abort", drill.zone))
    starts_s = 60.0 if kind == "schedule" else 0.0
    if random.random() < 0.1:  # nothing automatic may happen for longer than the drill was to take
        killed_s = random.uniform(5, 40)
        on, off = Switching(killed_s, "kill", on=True), Switching(killed_s + random.uniform(150, 320), "kill", on=False)
        scenario = replace(scenario, switches=(on, off))
    return replace(
        scenario,
        zone_orders=tuple(sorted(orders, key=lambda order: order.at_s)),
        signals=_draw_turns(random, starts_s),
        deploy_at_s=starts_s + random.uniform(5, 120),
        attention=max(scenario.attention, random.choice((0.0, 0.1))),
    )


def _draw_turns(random: Random, starts_s: float) -> tuple[SignalTurn, ...]:
    return tuple(
        SignalTurn(
            starts_s + random.uniform(0, 90), name, random.choice(("bad", "bad", "unknown")), random.uniform(3, 90)
        )
        for name in random.choices(SIGNALS, k=random.randint(0, 2))
    )


def _draw_hands(random: Random, scenario: Scenario) -> Scenario:
    """Carriers that keep the clouds as the document says, and hands that change what it says there."""
    if random.random() >= RECONCILED:
        return scenario
    zones = [zone.id for zone in scenario.topology.zones()]
    hands = [Hand(random.uniform(0, 150), zone) for zone in zones if random.random() < 0.1]
    return replace(scenario, reconciles=True, hands=tuple(hands))


def _draw_regions(random: Random, scenario: Scenario) -> Scenario:
    """A whole region is moved elsewhere and back. No connection of its users lives longer than that takes."""
    regions = [region.id for region in scenario.topology.regions]
    if random.random() >= 0.08 or len(regions) < 2 or scenario.target != WELL:
        return scenario
    physics = replace(scenario.physics, connection_life_s=random.uniform(5, 20))
    scenario = replace(scenario, physics=physics)
    if random.random() < 0.35:
        drill = RegionOrder(random.uniform(0, 5), "drill", random.choice(regions), lasts_s=random.uniform(30, 200))
        turns, deploy_at_s = _draw_turns(random, 0.0), random.uniform(5, 150)
        return replace(scenario, region_orders=(drill,), signals=turns, deploy_at_s=deploy_at_s)
    at_s = random.choice((random.uniform(0, 3), random.uniform(0, 150)))
    region, overrides = random.choice(regions), tuple[str, ...]()
    if random.random() < 0.15:
        overrides = (random.choice(REGION_OVERRIDABLE),)
    orders = [RegionOrder(at_s, "evacuate", region, overrides)]
    for kind in ("return", *random.choices(("evacuate", "return", "resume"), k=random.randint(0, 2))):
        at_s += random.choice((random.uniform(0, 5), random.uniform(5, 100)))
        orders.append(RegionOrder(at_s, kind, random.choice(regions) if random.random() < 0.1 else region))
    return replace(scenario, region_orders=tuple(orders))


def _draw_expiry(random: Random, scenario: Scenario) -> Scenario:
    """A region may be out for so short a time that it expires while it is."""
    if not scenario.region_orders:
        return scenario
    return replace(scenario, policy=replace(scenario.policy, out_expires_s=random.uniform(10, 100)))


def _draw_topology(random: Random) -> Topology:
    shapes: tuple[Mapping[str, int], ...] = (
        {"aws/us-east-1": 3, "azure/eastus": 3},
        {"aws/us-east-1": 3, "azure/eastus": 3},
        {"aws/us-east-1": 2, "azure/eastus": 3},
        {"aws/us-east-1": 3, "aws/eu-west-1": 3},
        {"azure/eastus": 3, "azure/westus": 2},
        {"aws/us-east-1": 4},
    )
    return make_topology(random.choice(shapes), instances=random.choice((2, 3, 3, 4)))


def _draw_physics(random: Random) -> Physics:
    return Physics(
        boot_s=random.uniform(0.5, 15.0),
        ready_s=random.uniform(0.1, 5.0),
        replace_start_s=random.uniform(0.0, 5.0),
        health_pass_s=random.uniform(0.2, 3.0),
        health_fail_s=random.uniform(0.2, 3.0),
        deregistration_s=random.choice((1.0, 5.0, 15.0)),
        close_s=random.uniform(0.5, 5.0),
        longest_request_s=random.uniform(0.1, 1.0),
    )
