"""I8 lives here: a zone that stays out for too long is told to a person, again and again, and then policy acts once."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Final

from orchestrator.core.errors import Rejected, Transient
from orchestrator.core.policy import DeployPolicy, OnExpiry
from orchestrator.engine.ports import Lease, Run, Store
from orchestrator.ports import Clock, Notice, Notifier

WARN_AT: Final = 0.8  # of the time that a zone may be out
AGAIN: Final = 0.25  # of it between two pages once it is over
AUTHOR: Final = "failout"
ORDER_OF: Final = {OnExpiry.HOLD: "pause", OnExpiry.RESTORE: "abort"}


class Expiries:
    """Watches the leases of the runs that `carrier` carries. Call `look` every second or so."""

    def __init__(self, store: Store, notifier: Notifier, service: str, policy: DeployPolicy, carrier: str) -> None:
        self._store, self._notifier, self._service = store, notifier, service
        self._policy, self._carrier = policy, carrier
        self._told: dict[int, float] = {}  # fence -> the share of its time that was told last

    async def forever(self, clock: Clock) -> None:
        while True:
            with contextlib.suppress(Transient):  # The store is not there: look again.
                await self.look(clock.now())
            await clock.sleep(1.0)

    async def look(self, now: datetime) -> None:
        leases = [lease for lease in await self._store.leases(self._service) if lease.expires_at is not None]
        self._told = {lease.fence: self._told.get(lease.fence, 0.0) for lease in leases}
        for lease in leases:
            run = await self._store.load(lease.run)
            if run.carrier == self._carrier and run.kind != "outing":  # An outing minds its own time (core/outing.py).
                await self._judge(lease, run, now)

    async def _judge(self, lease: Lease, run: Run, now: datetime) -> None:
        assert lease.expires_at is not None
        allowed_s = max((lease.expires_at - lease.since).total_seconds(), 1e-3)
        share, told = (now - lease.since).total_seconds() / allowed_s, self._told[lease.fence]
        if share < (told + AGAIN if told >= 1.0 else 1.0 if told else WARN_AT):
            return
        self._told[lease.fence] = share
        out = f"{lease.zone} is out since {lease.since:%Y-%m-%d %H:%M:%S} UTC, {share:.0%} of the {allowed_s:.0f} s allowed"
        if share < 1.0:
            await self._tell("warning", lease, "out-long", out)
            return
        done = await self._act(lease, run, now)
        await self._tell("page", lease, "out-too-long", f"{out}; {done}")

    async def _act(self, lease: Lease, run: Run, now: datetime) -> str:
        """Do what policy says, once a lease, whatever process watches it."""
        kind, args = ORDER_OF[self._policy.on_expiry], {"fence": lease.fence}
        pending = await self._store.pending(run.id)
        past = await self._store.events(run.id)
        if any(o.args == args for o in pending.orders) or any(dict(r.event.args) == args for r in past):
            return f"{kind} was ordered, the run is {run.status}"
        # A region minds its own time, and is not stopped on its way back.
        if self._policy.on_expiry is OnExpiry.HOLD and run.kind == "region":
            return f"the run is {run.status}"
        if self._policy.on_expiry is OnExpiry.HOLD and run.status != "active":
            return f"the run is {run.status} and waits for a person"
        if self._policy.on_expiry is OnExpiry.RESTORE and pending.killed:
            return f"{kind} is not ordered, for the kill switch is on (I14)"  # The next page looks again.
        why = f"I8: {lease.zone} is out for longer than allowed"
        try:
            await self._store.post_order(run.id, kind, author=AUTHOR, reason=why, now=now, args={"fence": lease.fence})
        except Rejected as late:
            return str(late)
        return f"{kind} is ordered (on_expiry: {self._policy.on_expiry})"

    async def _tell(self, level: str, lease: Lease, what: str, evidence: str) -> None:
        command = f"failout report show {lease.run}"
        await self._notifier.notify(Notice(level, lease.run, lease.zone, what, evidence, "I8", command))
