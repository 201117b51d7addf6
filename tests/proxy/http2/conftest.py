"""Tests here are coroutines, on the loop that workers have, and run with each library of frames."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

import grpc
import pytest
import uvloop

from rauta.proxy.http2 import library as libraries
from support import grpcpeers
from support.compiled import COMPILED
from support.http import Gateway

# The libraries are not compiled, and see the same calls: of the compiled data plane one is enough.
USED = libraries.LIBRARIES[:1] if COMPILED else libraries.LIBRARIES


@pytest.fixture(autouse=True, params=USED)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The library in use."""
    monkeypatch.setenv("RAUTA_HTTP2", request.param)
    libraries.library.cache_clear()
    yield request.param
    libraries.library.cache_clear()


# --- gRPC ---------------------------------------------------------------------------------------------------


@pytest.fixture
def backend() -> Iterator[grpcpeers.Server]:
    """A gRPC server."""
    with grpcpeers.serving() as server:
        yield server


@pytest.fixture
def rauta(backend: grpcpeers.Server) -> Iterator[Gateway]:
    """A gateway before it."""
    with grpcpeers.between(grpcpeers.to(backend.port)) as found:
        yield found


@pytest.fixture
def client(rauta: Gateway) -> Iterator[grpc.Channel]:
    """A channel to that."""
    with grpcpeers.channel(rauta.port) as found:
        yield found


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run one."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames  # as pytest does it itself
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    uvloop.run(asyncio.wait_for(pyfuncitem.obj(**arguments), 60))
    return True
