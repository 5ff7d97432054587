"""Every state that a machine can reach: breadth first, over all that may happen to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from orchestrator.core.machine import Event

S = TypeVar("S")
Edges = Iterable[tuple[Event, S]]


@dataclass
class Explored(Generic[S]):
    """`states` have no prose: what `shape` makes equal is visited once."""

    ended: Callable[[S], bool]
    shape: Callable[[S], S]
    states: set[S] = field(default_factory=set)
    edges: dict[S, list[tuple[Event, S]]] = field(default_factory=dict)

    def steps(self) -> Iterator[tuple[S, str, S]]:
        for before, edges in self.edges.items():
            for event, after in edges:
                yield before, event.kind, after

    def finishing(self) -> set[S]:
        """The states from which some end can be reached."""
        back: dict[S, set[S]] = {}
        for source, edges in self.edges.items():
            for _, target in edges:
                back.setdefault(self.shape(target), set()).add(source)
        seen = {s for s in self.states if self.ended(s)}
        todo = deque(seen)
        while todo:
            for source in back.get(todo.popleft(), ()):
                if source not in seen:
                    seen.add(source)
                    todo.append(source)
        return seen


def explored(
    first: S, successors: Callable[[S], Edges[S]], shape: Callable[[S], S], ended: Callable[[S], bool]
) -> Explored[S]:
    found = Explored(ended, shape)
    todo = deque([shape(first)])
    while todo:
        state = todo.popleft()
        if state in found.states:
            continue
        found.states.add(state)
        found.edges[state] = list(successors(state))
        todo.extend(shape(after) for _, after in found.edges[state])
    return found
