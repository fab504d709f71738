"""Fixtures of the tests of calls: a scripted server and a gateway with a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling.llm import batch_http, batch_round
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.testing import BatchServer, ScriptedServer


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(Cache(tmp_path / "cache.sqlite"))


@pytest.fixture
def sweep_server():
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def batch_server() -> Iterator[BatchServer]:
    with BatchServer() as running:
        yield running


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are looked at without a pause, and nobody waits before a second try."""
    monkeypatch.setattr(batch_round, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(batch_round, "QUEUE_FULL_SECONDS", 0.0)
    monkeypatch.setattr(batch_http, "backoff_seconds", lambda state: 0.0)
