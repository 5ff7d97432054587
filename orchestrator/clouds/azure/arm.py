"""Azure Resource Manager, one object per subscription and endpoint.

The SDK's clients are synchronous and run on threads of their own: its asynchronous ones need aiohttp, which nothing else
here uses. Importing the SDK takes a second, so it happens on such a thread at the first call.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from orchestrator.clouds import IMPORTING

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.polling import LROPoller

    from orchestrator.clouds.azure.sdk import Clients, Started

T = TypeVar("T")
THREADS = 8
PUBLIC_CLOUD = "https://management.azure.com"


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a long-running operation. `known` False: ARM no longer remembers it, look at the resource instead."""

    known: bool
    running: bool = False
    code: str = ""  # of a failure
    message: str = ""
    retry_after_s: float | None = None


class Azure:
    """The clients of every subscription, made when first asked for. `credential` None: azure-identity's default chain."""

    def __init__(self, credential: TokenCredential | None = None) -> None:
        self._credential = credential
        self._arms: dict[tuple[str, str], Arm] = {}
        self.calls: Counter[str] = Counter()  # calls made, by name; reads are the ones that begin with Get or List

    def arm(self, subscription_id: str, endpoint_url: str | None) -> Arm:
        """`endpoint_url` None: the public cloud."""
        key = (subscription_id, (endpoint_url or PUBLIC_CLOUD).rstrip("/"))
        if key not in self._arms:
            self._arms[key] = Arm(*key, self._credential, self.calls)
        return self._arms[key]

    def close(self) -> None:
        for arm in self._arms.values():
            arm.close()


class Arm:
    def __init__(
        self, subscription_id: str, endpoint_url: str, credential: TokenCredential | None, calls: Counter[str]
    ) -> None:
        self._calls = calls
        self.subscription_id = subscription_id
        self.endpoint_url = endpoint_url
        self._credential = credential
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="azure")
        self._lock = threading.Lock()
        self._clients: Clients | None = None

    async def ask(self, call: str, where: str, question: Callable[[Clients], T]) -> T:
        """Run `question` on a thread. SDK errors come out as Failout's, naming `call` and `where` (a zone or region)."""
        self._calls[call] += 1
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, call, where, question)

    async def begin(self, call: str, where: str, start: Callable[[Clients, Started], LROPoller[Any]]) -> str:
        """Start a long-running operation, return at once. The answer is its token for `progress`, good for any process."""

        def question(clients: Clients) -> str:
            from orchestrator.clouds.azure.sdk import Started  # noqa: PLC0415

            method = Started()
            start(clients, method)
            return method.url

        return await self.ask(call, where, question)

    async def progress(self, token: str, where: str) -> Progress:
        """Ask once how far an operation is, also one that another process began."""
        if urlsplit(token)[:2] != urlsplit(self.endpoint_url)[:2]:
            return Progress(known=False)  # our credential is shown to no other host

        def question(clients: Clients) -> Progress:
            from orchestrator.clouds.azure.sdk import read_progress  # noqa: PLC0415

            return read_progress(clients.compute, token)

        return await self.ask("GetOperation", where, question)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._clients is not None:
            self._clients.close()

    def _ask(self, call: str, where: str, question: Callable[[Clients], T]) -> T:
        with IMPORTING:
            from azure.core.exceptions import AzureError  # noqa: PLC0415

            from orchestrator.clouds.azure.errors import translate  # noqa: PLC0415
            from orchestrator.clouds.azure.sdk import Clients  # noqa: PLC0415

        with self._lock:
            self._clients = self._clients or Clients(self.subscription_id, self.endpoint_url, self._credential)
        try:
            return question(self._clients)
        except AzureError as error:
            raise translate(error, call, where) from error
