"""Contract tests are coroutines; whoever owns the world (a lab, a simulator) drives them through `rig.run`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import postgres_server
import pytest

from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Store
from orchestrator.engine.store import SqlStore


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    arguments["rig"].run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """The server is started by the first test that asks for it."""
    with ExitStack() as stack:
        yield functools.lru_cache(maxsize=1)(lambda: stack.enter_context(postgres_server.server()))


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path, postgres) -> Iterator[Callable[..., Store]]:
    """Make one more store over the same rows, as a second process would."""
    with ExitStack() as stack:
        if request.param == "memory":
            memory = MemoryStore()

            def same(max_zones_out: int = 1, out_expires_s: float | None = None) -> Store:
                memory._slots, memory._out_expires_s = max_zones_out, out_expires_s
                return memory

            yield same
            return
        where = tmp_path if request.param == "sqlite" else stack.enter_context(postgres_server.database(postgres()))
        place = Place.of(where)

        def opened(max_zones_out: int = 1, out_expires_s: float | None = None) -> Store:
            store = SqlStore(place, max_zones_out, out_expires_s)
            stack.callback(store.close)
            return store

        yield opened


@pytest.fixture
def store(make) -> Store:
    return make()
