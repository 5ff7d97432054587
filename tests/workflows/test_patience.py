"""What is read before a run exists is asked again for a while, and then the command says which API was silent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.errors import Denied, Transient
from orchestrator.lab.azure.limits import Bucket
from orchestrator.workflows.polling import Found, Patience, look_until


class Watch:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Api:
    """Answers after it has raised every one of `errors`."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.asked = list(errors), 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "v1"


def asked(api: Api, jitter: float = 1.0) -> tuple[str, Watch, list[str]]:
    watch, lines = Watch(), []
    patience = Patience.begin(watch, lambda: jitter, lines.append)
    return asyncio.run(patience.ask("the API of aws/us-east-1a", api)), watch, lines


def test_a_throttled_first_read_is_asked_again_after_doubling_waits_and_each_wait_is_told() -> None:
    found, watch, lines = asked(Api(*[Transient("Throttling")] * 3))
    assert ("v1", [0.25, 0.5, 1.0]) == (found, watch.slept)
    assert "the API of aws/us-east-1a does not answer, asking again in 0.2 s: Throttling" == lines[0]
    assert 3 == len(lines)


def test_jitter_takes_up_to_half_of_a_wait() -> None:
    assert [0.125, 0.25] == asked(Api(*[Transient("Throttling")] * 2), jitter=0.0)[1].slept


def test_retry_after_is_obeyed() -> None:
    assert [7.0] == asked(Api(Transient("429", retry_after_s=7.0)))[1].slept


def test_a_silent_api_is_given_up_within_the_budget_and_named() -> None:
    watch, api = Watch(), Api(*[Transient("no answer (ConnectTimeoutError)")] * 100)
    patience = Patience.begin(watch, lambda: 1.0, lambda _: None, seconds=30.0)
    with pytest.raises(Transient, match=r"the API of azure/eastus-1 did not answer, asked 11 times: no answer"):
        asyncio.run(patience.ask("the API of azure/eastus-1", api))
    assert watch.monotonic() <= 30.0
    assert 11 == api.asked


def test_a_denial_is_not_asked_twice() -> None:
    api = Api(Denied("AccessDenied"))
    with pytest.raises(Denied):
        asked(api)
    assert 1 == api.asked


class Limited:
    """Five reads at once of an API that allows 25 a second, and has none left."""

    def __init__(self, clock: Watch) -> None:
        self.clock, self.bucket = clock, Bucket(250, 25, 0, 0.0)

    async def __call__(self) -> bool:
        waits = [self.bucket.take(self.clock.monotonic()) for _ in range(5)]
        if any(waits):
            raise Transient("429", retry_after_s=0.04)
        return True


def test_a_look_of_several_reads_gets_through_a_limit_that_looking_has_used_up() -> None:
    async def never() -> bool:
        return False

    clock = Watch()
    found = asyncio.run(look_until(Limited(clock), clock, never, every_s=0.05, timeout_s=45.0))
    assert (True, [0.05, 0.1, 0.2]) == (isinstance(found, Found), clock.slept)
