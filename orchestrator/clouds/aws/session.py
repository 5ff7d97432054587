"""How the adapters call AWS: typed boto3 clients, run in threads, timed to end before another process may take over.

A takeover waits a grace of 3 s after its predecessor was last seen (engine). So a write has one attempt, which ends
within CONNECT_S + READ_S, and the fence is read right before it: a retry inside the client would write later than the
fence was read. Reads may be retried by the client, from botocore's retry quota.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.clouds import IMPORTING
from orchestrator.ports import Fence

if TYPE_CHECKING:  # boto3 takes 0.3 s to import, and its stubs are for development only.
    import boto3
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_route53 import Route53Client

CONNECT_S = 0.8
READ_S = 2.0
READ_ATTEMPTS = 3
THREADS = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Keys:
    """Explicit credentials, for the lab and tests. Without them boto3's own chain is used."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"Keys({self.access_key_id[:4]}...)"


class Clients:
    """The clients of one region, each made when first used (0.1 s), then kept. boto3 clients are thread-safe."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make

    @cached_property
    def autoscaling(self) -> AutoScalingClient:
        client: AutoScalingClient = self._make("autoscaling")
        return client

    @cached_property
    def ec2(self) -> EC2Client:
        client: EC2Client = self._make("ec2")
        return client

    @cached_property
    def elbv2(self) -> ElasticLoadBalancingv2Client:
        client: ElasticLoadBalancingv2Client = self._make("elbv2")
        return client

    @cached_property
    def route53(self) -> Route53Client:
        client: Route53Client = self._make("route53")
        return client


class AwsSession:
    """Every call to AWS of one process. `calls` counts what was sent, attempts included: "auto-scaling.SuspendProcesses" -> 2."""

    def __init__(self, keys: Keys | None = None) -> None:
        self.calls: Counter[str] = Counter()
        self._keys = keys
        self._lock = Lock()
        self._boto: boto3.session.Session | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aws")
        self._endpoints: dict[tuple[str, str | None], AwsEndpoint] = {}

    def endpoint(self, region: str, api: Mapping[str, str]) -> AwsEndpoint:
        """Return the way to `region`; `api` may carry endpoint_url (lab, VPC endpoint)."""
        at = (region, api.get("endpoint_url"))
        if at not in self._endpoints:
            self._endpoints[at] = AwsEndpoint(self, *at)
        return self._endpoints[at]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def make_client(self, service: str, region: str, endpoint_url: str | None, attempts: int) -> Any:  # noqa: ANN401
        with IMPORTING:
            import boto3  # noqa: PLC0415
            from botocore.config import Config  # noqa: PLC0415

        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=THREADS,
            user_agent_extra="failout",
        )
        keys = self._keys
        with self._lock:  # A boto3 session is not thread-safe; one for all clients parses each service model once.
            self._boto = self._boto or boto3.session.Session()
            client: Any = self._boto.client(  # type: ignore[call-overload]
                service,
                region_name=region,
                endpoint_url=endpoint_url,
                config=config,
                aws_access_key_id=keys and keys.access_key_id,
                aws_secret_access_key=keys and keys.secret_access_key,
                aws_session_token=keys and keys.session_token,
            )
        client.meta.events.register("before-send", self._count)
        return client

    def _count(self, event_name: str, **_: object) -> None:
        self.calls[event_name.removeprefix("before-send.")] += 1


class AwsEndpoint:
    """One region's API: `read` freely, `write` only under a fence."""

    def __init__(self, session: AwsSession, region: str, endpoint_url: str | None) -> None:
        self._session = session
        self._writers = Clients(lambda service: session.make_client(service, region, endpoint_url, 1))

        def reader(service: str) -> Any:  # noqa: ANN401
            # Every write follows a read of its service: its client is made here and not between fence and write.
            getattr(self._writers, service)
            return session.make_client(service, region, endpoint_url, READ_ATTEMPTS)

        self._readers = Clients(reader)

    async def read(self, where: str, call: str, work: Callable[[Clients], T]) -> T:
        return await self._session.in_thread(lambda: _translated(self._readers, where, call, work))

    async def write(self, where: str, call: str, fence: Fence, work: Callable[[Clients], T]) -> T:
        """Check the fence, then send `work` once. After Transient nobody knows whether it took effect: read back."""
        await fence.check()
        return await self._session.in_thread(lambda: _translated(self._writers, where, call, work))


def _translated(clients: Clients, where: str, call: str, work: Callable[[Clients], T]) -> T:
    with IMPORTING:
        from orchestrator.clouds.aws.errors import AWS_ERRORS, translate  # noqa: PLC0415

    try:
        return work(clients)
    except AWS_ERRORS as error:
        raise translate(error, call, where) from error
