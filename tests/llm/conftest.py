"""Fixtures of the tests of calls: a scripted server and a gateway with a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.testing import ScriptedServer


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(Cache(tmp_path / "cache.sqlite"))


@pytest.fixture
def sweep_server():
    with ScriptedServer() as running:
        yield running
