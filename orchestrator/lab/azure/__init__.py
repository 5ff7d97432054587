"""The lab's Azure: an ARM stand-in that the production SDK talks to over HTTP, and whose state drives real processes.

    azure = EmulatedAzure({"eastus": 21}, Timeline(folder / "timeline.jsonl"))
    url = azure.start()                       # 127.0.0.1, a free port
    ... hand `azure` to the data plane: it calls desired() and observe() every tick ...
    region = provision(url, azure.subscription_id, RegionPlan("eastus", 21, version="v1"))   # topology document's part

    azure.faults.add(Fault(FaultKind.THROTTLE, "POST", "/manualupgrade$", count=2, retry_after_s=0.2))
    azure.faults.add(Fault(FaultKind.FAIL, "POST", "/manualupgrade$"))     # accepted, ends Failed
    azure.set_room("azure/eastus-1", 3); azure.set_quota("eastus", 9); azure.expire_tokens()

What a client must know, as in the real one: userData is base64 and shown only with $expand=userData; only a new image
reference replaces a machine on manualupgrade (userData or tags alone do not restart anything); new instances arrive with
admin state None; a backend pool's PUT may change admin states only, takes If-Match, and takes effect when its operation
ends. Autoscale settings are kept as written; the lab's autoscaler acts on them, at its own pace.

Where the lab is not Azure: it is one subscription, one zone per scale set, Uniform only, and
`azure_seconds_per_lab_second` (default 25) divides probe intervals and the grace of automatic repairs.
"""

from orchestrator.lab.azure.faults import Fault, FaultDeck, FaultKind
from orchestrator.lab.azure.plane import SUBSCRIPTION_ID, EmulatedAzure
from orchestrator.lab.azure.provision import RegionPlan, provision

__all__ = ["SUBSCRIPTION_ID", "EmulatedAzure", "Fault", "FaultDeck", "FaultKind", "RegionPlan", "provision"]
