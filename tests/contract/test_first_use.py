"""The SDKs' first use, on threads of both clouds' adapters at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

COLD = """
import sys
import threading

from orchestrator.clouds import IMPORTING

alone = set()


class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"boto3", "botocore", "requests", "urllib3"}:
            alone.add((name.partition(".")[0], IMPORTING._is_owned()))


sys.meta_path.insert(0, Watch())
from orchestrator.clouds.aws.session import AwsSession, Keys
from orchestrator.clouds.azure.arm import Azure
from orchestrator.lab.credential import LabCredential

arm = Azure(LabCredential()).arm("s", "http://127.0.0.1:1")
aws = AwsSession(Keys("a", "b")).endpoint("us-east-1", {})
asks = [
    lambda: aws._readers.elbv2,
    lambda: arm._ask("GetNothing", "nowhere", lambda clients: None),
]
threads = [threading.Thread(target=ask) for ask in asks]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*sorted(alone))
"""


def test_one_thread_at_a_time_imports_what_both_clouds_sdks_share() -> None:
    """From two ends of urllib3's circle Python ends one of two threads with _DeadlockError, and a deploy with it."""
    told = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, timeout=60, check=True)
    names = ("boto3", "botocore", "requests", "urllib3")
    assert " ".join(str((name, True)) for name in names) == told.stdout.strip()


FINDING_OUT = """
from threading import Barrier, BrokenBarrierError, Thread

import orchestrator.clouds.azure.sdk
from azure.mgmt.{sdk}.models import {model}

both, inside = Barrier(2), []


class Fields(dict):
    def items(self):
        try:
            both.wait(0.2)
            inside.append("two at once")
        except BrokenBarrierError:
            inside.append("alone")
        return super().items()


class Seen({model}):
    pass


Seen.__annotations__ = Fields()
threads = [Thread(target=Seen) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*inside)
"""


@pytest.mark.parametrize(
    ("sdk", "model"), [("compute", "SubResource"), ("network", "SubResource"), ("trafficmanager", "Profile")]
)
def test_one_thread_at_a_time_finds_out_what_fields_a_class_of_azures_models_has(sdk: str, model: str) -> None:
    """Two at once left machines whose `properties` were a plain dict, and `topology check` with an AttributeError."""
    cold = FINDING_OUT.format(sdk=sdk, model=model)
    told = subprocess.run([sys.executable, "-c", cold], capture_output=True, text=True, timeout=60, check=True)
    assert "alone" == told.stdout.strip()
