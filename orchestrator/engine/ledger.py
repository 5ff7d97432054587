"""Pure sums over rows, shared by every store: the audit log's hash chain, refusals, and how long things usually take."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from math import ceil

from orchestrator.core.errors import Bug, Refused, Rejected, StaleCarrier, StoreAway
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.engine.codec import instant_text, text_of
from orchestrator.engine.ports import AuditEntry, Lease, Run, Usual

GENESIS = "0" * 64


def seal(previous: AuditEntry | None, author: str, act: str, reason: str, result: str, at: datetime) -> AuditEntry:
    """Return the entry that follows `previous`."""
    number = previous.id + 1 if previous else 1
    prev_hash = previous.hash if previous else GENESIS
    told = text_of([number, instant_text(at), author, act, reason, result, prev_hash])
    return AuditEntry(number, at, author, act, reason, result, prev_hash, hashlib.sha256(told.encode()).hexdigest())


def verify(entries: Iterable[AuditEntry]) -> str | None:
    """Say where the chain is broken, or None. Cannot see lines cut off its end: keep the last hash elsewhere for that."""
    previous: AuditEntry | None = None
    for entry in entries:
        if entry != seal(previous, entry.author, entry.act, entry.reason, entry.result, entry.at):
            return f"audit entry {entry.id} ({entry.act} by {entry.author}) does not follow from the one before it"
        previous = entry
    return None


def usual(lasted: Iterable[tuple[str, str, float]]) -> dict[str, Usual]:
    """Reduce (effect, event, seconds) to how long each effect usually takes.

    Only the effect's most frequent event counts: an interrupted or failed drain says nothing of how long a drain takes.
    """
    by_effect: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for effect, event, seconds in lasted:
        by_effect[effect].append((event, seconds))
    found = {}
    for effect, outcomes in by_effect.items():
        common, count = Counter(event for event, _ in outcomes).most_common(1)[0]
        seconds_sorted = sorted(seconds for event, seconds in outcomes if event == common)
        found[effect] = Usual(count, seconds_sorted[ceil(0.75 * count) - 1])
    return found


def slot_for(
    run: str, service: str, zone: str, held: Sequence[Lease], slots: int, extra: bool | tuple[str, ...] = False
) -> int:
    """Pick a slot for `zone`, or raise Refused (I1). `held` are the leases of other runs of the service."""
    same = [lease for lease in held if lease.zone == zone]
    counted = [lease for lease in held if extra is False or (extra is not True and lease.zone not in extra)]
    if len(counted) < slots and not same:
        return min(set(range(len(held) + slots)) - {lease.slot for lease in held})
    blocking = (same or sorted(counted, key=lambda lease: lease.since))[0]
    raise Refused(
        "I1",
        f"run {run} may not take {zone} out: run {blocking.run} has {blocking.zone} of {service} out "
        f"since {blocking.since:%Y-%m-%d %H:%M:%S} UTC",
        zone=zone,
        next_command=f"failout report show {blocking.run}",
    )


def expiry(since: datetime, out_expires_s: float | None) -> datetime | None:
    """Say when a lease that is taken now has lasted too long (I8)."""
    return since + timedelta(seconds=out_expires_s) if out_expires_s is not None else None


def refuse_second_deploy(first: Run) -> Refused:
    return Refused(
        "I1",
        f"deploy {first.id} of {first.service} is not finished ({first.status}, by {first.author} "
        f"since {first.created_at:%Y-%m-%d %H:%M:%S} UTC)",
        zone=first.zone,
        next_command=f"failout deployments show {first.id}   (or: retarget {first.id} --to VERSION)",
    )


def reject_late_order(run: str, status: str, kind: str) -> Rejected:
    return Rejected(f"run {run} has finished ({status}); {kind} no longer reaches it")


def stale(seen: Run, seq: int, epoch: int, carrier: str | None) -> StaleCarrier:
    return StaleCarrier(
        f"run {seen.id} moved on to seq {seq}, epoch {epoch} (carried by {carrier}); "
        f"this carrier stands at seq {seen.seq}, epoch {seen.epoch}"
    )


def check_traffic(
    service: str, desired: DesiredTraffic, expected_version: int, stored_version: int, live_fences: Collection[int]
) -> None:
    """Compare before the swap. Only a run that holds a lease right now changes traffic; the first document is free."""
    if stored_version and desired.fence not in live_fences:
        raise StaleCarrier(f"traffic of {service} is not for fence {desired.fence} to change: that lease is gone")
    if stored_version != expected_version:
        raise StoreAway(f"traffic of {service} is at version {stored_version}, not {expected_version}: read it again")
    if desired.version <= stored_version:
        raise Bug(f"traffic of {service} must grow beyond version {stored_version}, not to {desired.version}")
