"""What each version of the lab's service does: good ones, and ones that are sick on purpose.

A version's suffix says its sickness (`v2-errors-20` serves 500 to 20 % of its requests); any other name is good. With
`-on-azure` behind it the version is sick on that cloud only, as when one of its images was built wrong. An instance gets
its behaviour as JSON, because it runs without this package.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Seconds and milliseconds as named; shares 0..1. `unready_s` is how long work answers 503 after `/readyz` said 200.

    `leaks_s`: memory grows and the process dies after so long; 0 never. `boots` False: it runs and never listens.
    """

    boot_s: float = 1.0
    boots: bool = True
    ready: bool = True
    unready_s: float = 0.0
    error_share: float = 0.0
    added_ms: float = 0.0
    leaks_s: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


GOOD = Behaviour()

SICKNESSES = {
    "-noboot": Behaviour(boots=False),
    "-notready": Behaviour(ready=False),
    "-early": Behaviour(unready_s=5.0),
    "-errors-1": Behaviour(error_share=0.01),
    "-errors-20": Behaviour(error_share=0.2),
    "-errors-100": Behaviour(error_share=1.0),
    "-slow": Behaviour(added_ms=100.0),
    "-leaks": Behaviour(leaks_s=60.0),
}


def behaviour_of(version: str, cloud: str = "") -> Behaviour:
    """What `version` does on `cloud` ("aws"); without one, where it is sick."""
    named, _, only = version.partition("-on-")
    if cloud and only not in ("", cloud):
        return GOOD
    return next((sick for suffix, sick in SICKNESSES.items() if named.endswith(suffix)), GOOD)
