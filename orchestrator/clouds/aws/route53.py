"""The global tier on Route 53: one weighted record set per region, told apart by SetIdentifier = region id.

API limits: 5 requests a second for an account. A read costs one call, two while a change spreads; a change is one batch,
which Route 53 takes whole or not at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.clouds.aws.session import AwsSession, Clients
from orchestrator.core.errors import NotFound, Rejected
from orchestrator.core.topology import GlobalTier
from orchestrator.ports import Fence, GlobalSeen

if TYPE_CHECKING:
    from mypy_boto3_route53.type_defs import ChangeTypeDef, ResourceRecordSetOutputTypeDef

WEIGHT_MAX = 255
# Route 53 is one service for all regions; its clients sign for this one.
SIGNING_REGION = "us-east-1"


class Route53:
    """Weights of one name. A region may have several records (A and AAAA): they carry one weight."""

    def __init__(self, session: AwsSession, tier: GlobalTier) -> None:
        self._at = session.endpoint(tier.api.get("region", SIGNING_REGION), tier.api)
        self._zone = tier.attributes["hosted_zone_id"]
        self._name = tier.record.rstrip(".").lower() + "."
        self._change: str | None = None  # The newest change of this process, until Route 53 calls it in sync.
        self._changed = False

    async def read(self) -> GlobalSeen:
        """Tell the weights as written. A region whose records differ has its highest weight and is not in sync."""
        records = await self._records()
        weights = {region: max(_weights(sets)) for region, sets in records.items()}
        agreed = all(len(set(_weights(sets))) == 1 for sets in records.values())
        return GlobalSeen(weights, agreed and await self._in_sync())

    async def apply(self, weights: Mapping[str, int], fence: Fence) -> None:
        """Write the records whose weight differs.

        The first `apply` of a process writes all the records it names, even to what they say already: only a change
        of its own can be followed until all name servers have it, and one made before a crash may still be spreading.
        """
        records = await self._records()
        unknown = sorted(set(weights) - set(records))
        if unknown:
            raise NotFound(f"{self._name} has no weighted record for {', '.join(unknown)}")
        wrong = sorted(region for region, weight in weights.items() if not 0 <= weight <= WEIGHT_MAX)
        if wrong:
            raise Rejected(f"{self._name}: weights are 0 to {WEIGHT_MAX}; not so for {', '.join(wrong)}")
        after = {region: max(_weights(sets)) for region, sets in records.items()} | dict(weights)
        if not any(after.values()):
            raise Rejected(f"{self._name}: with every weight 0 Route 53 answers with all regions")
        changes = [
            _upsert(record, weights[region])
            for region, sets in records.items()
            if region in weights
            for record in sets
            if not self._changed or record["Weight"] != weights[region]
        ]
        if changes:
            await self._write(changes, fence)

    async def _write(self, changes: list[ChangeTypeDef], fence: Fence) -> None:
        answer = await self._at.write(
            self._name,
            "ChangeResourceRecordSets",
            fence,
            lambda aws: aws.route53.change_resource_record_sets(
                HostedZoneId=self._zone, ChangeBatch={"Comment": "failout", "Changes": changes}
            ),
        )
        self._change, self._changed = answer["ChangeInfo"]["Id"], True

    async def _in_sync(self) -> bool:
        change = self._change
        if change is None:
            return True
        answer = await self._at.read(self._name, "GetChange", lambda aws: aws.route53.get_change(Id=change))
        if answer["ChangeInfo"]["Status"] != "INSYNC":
            return False
        if self._change == change:  # A newer one may have come while this was asked.
            self._change = None
        return True

    async def _records(self) -> dict[str, list[ResourceRecordSetOutputTypeDef]]:
        def pages(aws: Clients) -> list[ResourceRecordSetOutputTypeDef]:
            # Names come in order: the listing starts at ours and ends behind it, wherever the zone ends.
            found: list[ResourceRecordSetOutputTypeDef] = []
            page = aws.route53.list_resource_record_sets(HostedZoneId=self._zone, StartRecordName=self._name)
            while True:
                ours = [r for r in page["ResourceRecordSets"] if r["Name"].lower() == self._name]
                found += ours
                if not page["IsTruncated"] or len(ours) < len(page["ResourceRecordSets"]):
                    return found
                page = aws.route53.list_resource_record_sets(
                    HostedZoneId=self._zone,
                    StartRecordName=page["NextRecordName"],
                    StartRecordType=page["NextRecordType"],
                    **(
                        {"StartRecordIdentifier": page["NextRecordIdentifier"]}
                        if "NextRecordIdentifier" in page
                        else {}
                    ),
                )

        records: dict[str, list[ResourceRecordSetOutputTypeDef]] = defaultdict(list)
        for record in await self._at.read(self._name, "ListResourceRecordSets", pages):
            if "Weight" in record and "SetIdentifier" in record:
                records[record["SetIdentifier"]].append(record)
        if not records:
            raise NotFound(f"hosted zone {self._zone} has no weighted record {self._name}")
        return dict(records)


def _weights(sets: list[ResourceRecordSetOutputTypeDef]) -> list[int]:
    return [record["Weight"] for record in sets]


def _upsert(record: ResourceRecordSetOutputTypeDef, weight: int) -> ChangeTypeDef:
    """Give the record back whole: an UPSERT replaces TTL, health check, alias and all."""
    return {"Action": "UPSERT", "ResourceRecordSet": {**record, "Weight": weight}}
