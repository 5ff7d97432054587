"""A token for the emulated Azure. Apart from its clients: whoever only hands it on need not load Azure's SDK (0.6 s)."""

from __future__ import annotations

import time
import uuid

from azure.core.credentials import AccessToken


class LabCredential:
    """Hands out a new token whenever it is asked: the stand-in takes any until it is told to expire them.

    azure-core keeps a token until 300 s before its end, so a `lifetime_s` below that asks anew for every request.
    """

    def __init__(self, name: str = "lab", *, lifetime_s: int = 3600) -> None:
        self._name, self._lifetime_s = name, lifetime_s

    def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
        return AccessToken(f"{self._name}-{uuid.uuid4()}", int(time.time()) + self._lifetime_s)
