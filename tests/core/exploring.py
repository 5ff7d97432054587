"""Every state that a machine can reach: breadth first, over all that may happen to it."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from orchestrator.core.machine import Event

S = TypeVar("S")
Edges = Iterable[tuple[Event, S]]


@dataclass
class Explored(Generic[S]):
    """`states` have no prose: what the shape makes equal is visited once. `next` says by number where edges lead."""

    ended: Callable[[S], bool]
    states: list[S] = field(default_factory=list)
    edges: list[list[tuple[Event, S]]] = field(default_factory=list)
    next: list[list[int]] = field(default_factory=list)

    def steps(self) -> Iterator[tuple[S, str, S]]:
        for before, edges in zip(self.states, self.edges, strict=True):
            for event, after in edges:
                yield before, event.kind, after

    def stuck(self) -> list[S]:
        """The states from which no end can be reached."""
        back: list[list[int]] = [[] for _ in self.states]
        for source, targets in enumerate(self.next):
            for target in targets:
                back[target].append(source)
        todo = deque(number for number, state in enumerate(self.states) if self.ended(state))
        seen = set(todo)
        while todo:
            for source in back[todo.popleft()]:
                if source not in seen:
                    seen.add(source)
                    todo.append(source)
        return [state for number, state in enumerate(self.states) if number not in seen]


@contextmanager
def _uncollected() -> Iterator[None]:
    """A million states that all stay: looking for garbage among them takes longer than to find them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def explored(
    first: S, successors: Callable[[S], Edges[S]], shape: Callable[[S], S], ended: Callable[[S], bool]
) -> Explored[S]:
    found = Explored(ended)
    numbers: dict[S, int] = {}  # each state is hashed once for every edge that leads to it

    def number(state: S) -> int:
        known = numbers.setdefault(state, len(found.states))
        if known == len(found.states):
            found.states.append(state)
        return known

    with _uncollected():
        number(shape(first))
        for state in found.states:  # which grows meanwhile
            edges = list(successors(state))
            found.edges.append(edges)
            found.next.append([number(shape(after)) for _, after in edges])
    return found
