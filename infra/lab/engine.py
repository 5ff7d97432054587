"""Runs a program without Pulumi's engine: a monitor in this process takes what the program registers.

Everything that is registered is kept (inputs, options, outputs), so that tests can ask about the whole graph; what the
`Maker` makes is made, once, and never compared with what was there: for a new lab, and for tests.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pulumi
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime import mocks, rpc, settings, stack
from pulumi.runtime.config import set_all_config
from pulumi.runtime.sync_await import _sync_await

from infra.lab import recorded

INFRA = Path(__file__).resolve().parents[1]
Json = dict[str, Any]


class Maker(Protocol):
    """Makes a resource, or only answers for it. Called from many threads at once."""

    def create(self, kind: str, name: str, inputs: Json) -> tuple[str, Json]: ...


class Recorder:
    """Makes nothing: every resource is written down."""

    def create(self, kind: str, name: str, inputs: Json) -> tuple[str, Json]:
        return recorded.answer(kind, name, inputs)


@dataclass(frozen=True, slots=True)
class Resource:
    """One registered resource. `inputs` have the SDK's wire names (camelCase); `dependencies` are URNs."""

    urn: str
    kind: str
    name: str
    id: str
    inputs: Json
    outputs: Json
    parent: str
    protect: bool
    ignore_changes: tuple[str, ...]
    dependencies: tuple[str, ...]


@dataclass(slots=True)
class Run:
    """What a program registered and exported."""

    resources: list[Resource] = field(default_factory=list)
    outputs: Json = field(default_factory=dict)

    def of(self, kind: str) -> list[Resource]:
        """Resources whose type ends with `kind` (`autoscaling/group:Group`), by name."""
        return sorted((r for r in self.resources if r.kind.endswith(kind)), key=lambda r: r.name)


def run(program: str, config: Mapping[str, Any], maker: Maker, references: Mapping[str, Json] | None = None) -> Run:
    """Run `infra/PROGRAM/__main__.py` with `config`. `references`: outputs of the stacks that it refers to, by name.

    Raises what the program raises. Not for several programs at once: Pulumi's SDK keeps its state in the process.
    """
    result = Run()
    settings.reset_options()
    settings.SETTINGS.rpc_manager.clear()
    settings.SETTINGS.outputs.clear()
    settings.ROOT.set(None)
    project = f"failout-{program}"
    set_all_config({f"{project}:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in config.items()})
    taker = _Taker(maker, references or {})
    mocks.set_mocks(taker, project=project, stack="lab", monitor=_Monitor(taker, result))
    settings.ROOT.set(None)

    _sync_await(stack.run_in_stack(lambda: _execute(INFRA / program / "__main__.py")))
    return result


def _execute(path: Path) -> None:
    runpy.run_path(str(path), run_name="__main__")


class _Taker(mocks.Mocks):
    def __init__(self, maker: Maker, references: Mapping[str, Json]) -> None:
        self._maker, self._references = maker, references

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[Json, list[tuple[str, str]]]:
        return recorded.call(args.token), []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, Json]:
        if args.typ == "pulumi:pulumi:StackReference":
            name = str(args.inputs["name"])
            return name, {**args.inputs, "outputs": self._references[name], "secretOutputNames": []}
        if args.custom is False or args.typ.startswith("failout:"):
            return "", {}
        return self._maker.create(args.typ, args.name, dict(args.inputs))


class _Monitor(mocks.MockMonitor):
    def __init__(self, taker: _Taker, run_: Run) -> None:
        super().__init__(taker)
        self._run = run_

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        reply: Any = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        self._run.resources.append(
            Resource(
                urn=reply.urn,
                kind=request.type,
                name=request.name,
                id=reply.id,
                inputs=rpc.deserialize_properties(request.object),
                outputs=rpc.deserialize_properties(reply.object),
                parent=request.parent,
                protect=bool(request.protect),
                ignore_changes=tuple(request.ignoreChanges),
                dependencies=tuple(request.dependencies),
            )
        )
        return reply

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        if "pulumi:pulumi:Stack" in request.urn:
            self._run.outputs = rpc.deserialize_properties(request.outputs)
        return empty_pb2.Empty()
