"""A CloudWatch alarm as a signal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final, Literal

from orchestrator.clouds.aws.errors import AWS_ERRORS, translate
from orchestrator.clouds.aws.session import READ_ATTEMPTS, AwsSession
from orchestrator.core.signal import CloudWatchAlarm
from orchestrator.ports import Reading

_STATES: Final[dict[str, Literal["good", "bad"]]] = {"OK": "good", "ALARM": "bad"}


@dataclass(frozen=True, slots=True)
class AwsAlarm:
    session: AwsSession
    spec: CloudWatchAlarm

    async def read(self) -> Reading:
        """OK is good, ALARM is bad; INSUFFICIENT_DATA, an alarm that is not there and no answer are unknown."""
        spec = self.spec
        told = f"CloudWatch alarm {spec.alarm} in {spec.region}"
        try:
            found = await asyncio.wait_for(self.session.in_thread(self._ask), spec.timeout_s)
        except TimeoutError:
            return Reading("unknown", f"{told}: no answer within {spec.timeout_s:g} s")
        except AWS_ERRORS as error:
            return Reading("unknown", str(translate(error, "DescribeAlarms", told)))
        except (ValueError, KeyError, TypeError, AttributeError):  # What botocore's parser stumbles over.
            return Reading("unknown", f"{told}: AWS answered with something else than alarms")
        if not found:
            return Reading("unknown", f"{told} does not exist")
        state = str(found[0]["StateValue"])
        why = " ".join(str(found[0].get("StateReason", "")).split())[:200]
        return Reading(_STATES.get(state, "unknown"), f"{told} is {state}" + (f": {why}" if why else ""))

    def _ask(self) -> list[dict[str, Any]]:
        spec = self.spec
        cloudwatch = self.session.make_client("cloudwatch", spec.region, spec.endpoint_url or None, READ_ATTEMPTS)
        answer = cloudwatch.describe_alarms(AlarmNames=[spec.alarm], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        return [*answer["MetricAlarms"], *answer.get("CompositeAlarms", [])]
