"""Microsoft.Compute: the instances of a scale set, and what can be asked of them: upgrade, reimage, restart, delete."""

# ruff: noqa: ARG002  (every handler has the signature that the router calls)
from __future__ import annotations

from orchestrator.lab.azure import fleet, views
from orchestrator.lab.azure.arm import ArmError, Params, Reply, Request, Route
from orchestrator.lab.azure.compute import PATH, accepted
from orchestrator.lab.azure.faults import FaultKind
from orchestrator.lab.azure.operations import PREEMPTED, SUCCEEDED, Ended, Judge
from orchestrator.lab.azure.state import ScaleSet, Vm, World

VM = PATH + "/virtualMachines/{vm}"
NICS = "/networkInterfaces"
C = "VirtualMachineScaleSets_"
REIMAGE = "compute:VirtualMachineScaleSetReimageParameters"
IDS, SOME_IDS = "compute:VirtualMachineScaleSetVMInstanceRequiredIDs", "compute:VirtualMachineScaleSetVMInstanceIDs"


class Instances:
    def __init__(self, world: World) -> None:
        self._world = world
        self._rollouts: dict[str, fleet.Rollout] = {}

    def routes(self) -> list[Route]:
        v = "VirtualMachineScaleSetVMs_"
        nic, one = "network:NetworkInterface", "compute:VirtualMachineScaleSetVM"
        view = "compute:VirtualMachineScaleSetVMInstanceView"
        r = "VirtualMachineScaleSetRollingUpgrades_"
        n, nics = "NetworkInterfaces_", "network:[NetworkInterface]"
        instances, latest = f"compute:[{one.partition(':')[2]}]", "compute:RollingUpgradeStatusInfo"
        return [
            Route("POST", PATH + "/manualupgrade", C + "UpdateInstances", self._upgrade, IDS),
            Route("POST", PATH + "/reimage", C + "Reimage", self._reimage, REIMAGE),
            Route("POST", PATH + "/restart", C + "Restart", self._restart, SOME_IDS),
            Route("POST", PATH + "/delete", C + "DeleteInstances", self._delete, IDS),
            Route("POST", PATH + "/osRollingUpgrade", r + "StartOSUpgrade", self._roll),
            Route("POST", PATH + "/rollingUpgrades/cancel", r + "Cancel", self._cancel),
            Route("GET", PATH + "/rollingUpgrades/latest", r + "GetLatest", self._latest, None, latest),
            Route("GET", PATH + "/virtualMachines", v + "List", self._list, None, instances),
            Route("GET", VM, v + "Get", self._get, None, one),
            Route("GET", VM + "/instanceView", v + "GetInstanceView", self._view, None, view),
            Route("GET", PATH + NICS, n + "ListVirtualMachineScaleSetNetworkInterfaces", self._nics, None, nics),
            Route("GET", VM + NICS, n + "ListVirtualMachineScaleSetVMNetworkInterfaces", self._vm_nics, None, nics),
            Route("GET", VM + NICS + "/{nic}", n + "GetVirtualMachineScaleSetNetworkInterface", self._nic, None, nic),
        ]

    def _owner(self, params: Params) -> ScaleSet:
        return self._world.scale_set(PATH.format(**params), params["group"])

    def _vm(self, params: Params) -> tuple[ScaleSet, Vm]:
        owner = self._owner(params)
        vm = owner.vms.get(params["vm"])
        if vm is None:
            raise ArmError(404, "NotFound", f"The entity {params['vm']} was not found in {owner.name}.")
        return owner, vm

    # -- reads

    def _list(self, request: Request, params: Params) -> Reply:
        owner = self._owner(params)
        shown = {"view": request.expands("instanceView"), "user_data": request.expands("userData")}
        return Reply(200, {"value": [views.instance(owner, vm, **shown) for vm in owner.vms.values()]})

    def _get(self, request: Request, params: Params) -> Reply:
        owner, vm = self._vm(params)
        shown = {"view": request.expands("instanceView"), "user_data": request.expands("userData")}
        return Reply(200, views.instance(owner, vm, **shown))

    def _view(self, request: Request, params: Params) -> Reply:
        return Reply(200, views.instance_view(self._vm(params)[1]))

    def _nics(self, request: Request, params: Params) -> Reply:
        owner = self._owner(params)
        return Reply(200, {"value": [views.network_interface(owner, vm) for vm in owner.vms.values()]})

    def _vm_nics(self, request: Request, params: Params) -> Reply:
        return Reply(200, {"value": [views.network_interface(*self._vm(params))]})

    def _nic(self, request: Request, params: Params) -> Reply:
        body = views.network_interface(*self._vm(params))
        if body["name"].lower() != params["nic"].lower():
            raise ArmError(404, "NotFound", f"Network interface {params['nic']} was not found.")
        return Reply(200, body)

    def _latest(self, request: Request, params: Params) -> Reply:
        owner = self._owner(params)
        if owner.rolling is None:
            raise ArmError(404, "NotFound", "No rolling upgrade was found.")
        return Reply(200, owner.rolling)

    # -- acts

    def _upgrade(self, request: Request, params: Params) -> Reply:
        """Instances on the newest model are left alone as in Azure, but Failed ones: a write that succeeds ends that state."""
        owner = self._owner(params)
        latest = owner.model()
        vms = [vm for vm in self._named(owner, request) if vm.model != latest or vm.provisioning == "Failed"]
        return self._rollout(request, owner, [vms], "upgrade", C + "UpdateInstances")

    def _reimage(self, request: Request, params: Params) -> Reply:
        owner = self._owner(params)
        return self._rollout(request, owner, [self._named(owner, request)], "reimage", C + "Reimage")

    def _restart(self, request: Request, params: Params) -> Reply:
        owner = self._owner(params)
        return self._rollout(request, owner, [self._named(owner, request)], "restart", C + "Restart")

    def _roll(self, request: Request, params: Params) -> Reply:
        owner = self._owner(params)
        latest = owner.model()
        batches = fleet.batches_of(owner, [vm for vm in owner.vms.values() if vm.model != latest])
        return self._rollout(request, owner, batches, "upgrade", "VirtualMachineScaleSetRollingUpgrades_StartOSUpgrade")

    def _rollout(self, request: Request, owner: ScaleSet, batches: list[list[Vm]], action: str, what: str) -> Reply:
        """The newest rollout of a scale set preempts the one before. Restarts leave no `refresh` in the timeline."""
        operations = self._world.operations
        if owner.upgrade is not None:
            owner.upgrade.end(PREEMPTED, request.now)
        rollout = fleet.Rollout(self._world, owner, batches, action)
        rolling = request.path.lower().endswith("osrollingupgrade")

        def judge(now: float) -> Ended | None:
            ended = rollout.judge(now)
            if rolling:
                codes = {"Succeeded": "Completed", "Failed": "Faulted", "Canceled": "Cancelled"}
                code = codes[ended.status] if ended else "RollingForward"
                owner.rolling = fleet.rolling_status(owner, rollout, code, request.now, now)
            return ended

        if request.fault is not None and request.fault.kind is FaultKind.FAIL:
            rollout.tell("started")
            owner.upgrade = operations.start_failed(request, owner.region, what, rollout.told_end)
        else:
            on_end = rollout.begin(request.now)
            owner.upgrade = operations.start(request, owner.region, what, judge, on_end)
            if rolling:
                judge(request.now)
        self._rollouts[owner.id.lower()] = rollout
        return Reply(202, None, operations.headers(owner.upgrade, request, location=True))

    def _cancel(self, request: Request, params: Params) -> Reply:
        """Stop a rolling upgrade after the batch at work. A manualupgrade cannot be cancelled, only preempted."""
        owner = self._owner(params)
        upgrade, rollout = owner.upgrade, self._rollouts.get(owner.id.lower())
        rolls = upgrade is not None and upgrade.ended is None and "RollingUpgrades" in upgrade.what
        if not rolls or rollout is None:
            raise ArmError(409, "OperationNotAllowed", "There is no ongoing rolling upgrade to cancel.")
        rollout.cancelled = True

        def judge(_now: float) -> Ended | None:
            return SUCCEEDED if upgrade is None or upgrade.ended is not None else None

        return accepted(self._world, request, owner, "VirtualMachineScaleSetRollingUpgrades_Cancel", lambda: judge)

    def _delete(self, request: Request, params: Params) -> Reply:
        """Named instances go at once, wherever traffic is; capacity shrinks with them."""
        owner = self._owner(params)
        doomed = self._named(owner, request)

        def work() -> Judge:
            for vm in doomed:
                del owner.vms[vm.id]
            owner.document["sku"]["capacity"] = max(0, owner.capacity - len(doomed))
            owner.document["etag"] = f'"{self._world.new_id()}"'
            return lambda _now: SUCCEEDED

        return accepted(self._world, request, owner, C + "DeleteInstances", work)

    def _named(self, owner: ScaleSet, request: Request) -> list[Vm]:
        ids = (request.body or {}).get("instanceIds") or ["*"]
        if "*" in ids:
            return list(owner.vms.values())
        for unknown in (i for i in ids if i not in owner.vms):
            message = f"The provided instanceId {unknown} is not an active Virtual Machine Scale Set VM instanceId."
            raise ArmError(400, "InvalidParameter", message)
        return [owner.vms[i] for i in ids]
