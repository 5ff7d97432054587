"""The pure part of Azure traffic: what a zone is, and what would bring it closer to a wish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clouds.azure.pool import AdminState, Moves, Seat, moves, seen
from orchestrator.core.traffic import OUT, STEADY, Placement, ZoneTraffic, matches, ramp, without_surplus

ZONE = "azure/eastus-1"


def seat(n: int, state: str = "None", *, ready: bool = True, admitted: bool = True, users: int = 0) -> Seat:
    return Seat(f"vm_{n}", f"127.9.1.{10 + n}", ZONE, AdminState(state), True, ready, admitted, users)


def dark(n: int, state: str = "None") -> Seat:
    return Seat(f"vm_{n}", f"127.9.1.{10 + n}", ZONE, AdminState(state))


def out(n: int, *, ready: bool = True) -> Seat:
    return seat(n, "Down", ready=ready, admitted=False)


def after(seats: Sequence[Seat], made: Moves) -> list[Seat]:
    """The seats once Azure and the agent have done what was asked."""
    flags = {s.instance: True for s in made.admit} | {s.instance: False for s in made.dismiss}
    return [
        replace(s, state=made.states.get(s.address, s.state), admitted=flags.get(s.instance, s.admitted)) for s in seats
    ]


seats_of_a_zone = st.lists(
    st.builds(
        lambda state, ready, admitted, reachable: (state, ready and reachable, admitted and reachable, reachable),
        st.sampled_from(AdminState),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=7,
).map(
    lambda rows: [
        Seat(f"vm_{n}", f"127.9.1.{10 + n}", ZONE, state, reachable, ready, admitted)
        for n, (state, ready, admitted, reachable) in enumerate(rows)
    ]
)
smaller = st.tuples(st.integers(1, 7), st.integers(0, 7)).map(lambda n: without_surplus(n[0], sum(n)))
wishes = st.one_of(st.just(OUT), st.just(STEADY), st.floats(0.01, 1.0).map(ramp), smaller)


def test_a_zone_without_addresses_is_out_and_never_steady() -> None:
    assert seen([]).placement is Placement.OUT
    assert not matches(seen([]), STEADY, Fraction(1))


def test_a_zone_is_out_only_when_every_address_is_down() -> None:
    assert seen([out(0), out(1)]).placement is Placement.OUT
    assert seen([out(0), seat(1, admitted=False)]).placement is Placement.RAMP


def test_an_instance_that_takes_nothing_but_has_users_is_draining() -> None:
    assert seen([seat(0, "Down", users=2), seat(1, users=5), out(2)]).draining == 1


def test_an_address_that_is_up_takes_connections_whatever_its_probe_says() -> None:
    assert seen([seat(0, "Up", ready=False, admitted=False)]).taking == 1


def test_a_dead_instance_of_a_steady_zone_leaves_it_steady_but_short() -> None:
    zone = seen([seat(0), dark(1), seat(2)])
    assert (zone.placement, zone.taking, zone.healthy, zone.total) == (Placement.STEADY, 2, 2, 3)
    assert not matches(zone, STEADY, Fraction(1, 3))


@pytest.mark.parametrize(
    ("share", "instances"), [(0.01, 1), (0.1, 1), (1 / 3, 1), (0.34, 2), (0.5, 2), (0.67, 3), (1, 3)]
)
def test_a_share_is_rounded_up_to_whole_instances(share: float, instances: int) -> None:
    made = moves([out(n) for n in range(3)], ramp(share))
    assert len(made.admit) == len(made.states) == instances


def test_a_ramp_keeps_the_instances_that_are_open_already() -> None:
    made = moves([out(0), seat(1), out(2)], ramp(2 / 3))
    assert made.states == {"127.9.1.10": AdminState.NONE}
    assert not made.dismiss


def test_a_ramp_moves_to_a_ready_instance_when_the_open_one_fails() -> None:
    made = moves([seat(0, ready=False), out(1), out(2)], ramp(1 / 3))
    assert made.states == {"127.9.1.10": AdminState.DOWN, "127.9.1.11": AdminState.NONE}


def test_an_instance_that_arrives_open_in_a_zone_that_is_out_is_closed() -> None:
    made = moves([out(0), seat(1)], OUT)
    assert made.states == {"127.9.1.11": AdminState.DOWN}
    assert [s.instance for s in made.dismiss] == ["vm_1"]


def test_a_silent_instance_is_closed_in_the_pool_and_its_flag_left_alone() -> None:
    assert moves([dark(0)], OUT) == Moves({"127.9.1.10": AdminState.DOWN}, (), ())


@given(seats_of_a_zone, wishes)
def test_no_instance_is_opened_before_it_is_ready(seats: list[Seat], wish: ZoneTraffic) -> None:
    made = moves(seats, wish)
    ready = {s.address for s in seats if s.ready}
    assert {a for a, state in made.states.items() if state is not AdminState.DOWN} <= ready
    assert {s.address for s in made.admit} <= ready


@given(seats_of_a_zone, wishes)
def test_nothing_is_left_to_do_once_done(seats: list[Seat], wish: ZoneTraffic) -> None:
    assert moves(after(seats, moves(seats, wish)), wish) == Moves({}, (), ())


@given(seats_of_a_zone.filter(bool), wishes)
def test_a_zone_of_ready_instances_matches_what_was_done(seats: list[Seat], wish: ZoneTraffic) -> None:
    ready = [replace(s, ready=True, reachable=True) for s in seats]
    done = seen(after(ready, moves(ready, wish)))
    assert matches(done, wish, Fraction(1, len(seats)))
    assert done.taking >= wish.share * len(seats) - 1e-6


def test_what_leaves_out_a_surplus_leaves_nobody_out_once_that_has_gone() -> None:
    wish = without_surplus(3, 5)
    fewer = after([seat(n) for n in range(5)], moves([seat(n) for n in range(5)], wish))
    assert ["vm_0", "vm_1", "vm_2"] == [s.instance for s in fewer if s.taking]
    assert Moves({}, (), ()) == moves(fewer[:3], wish)
    assert matches(seen(fewer[:3]), wish, Fraction(1, 3))
