"""Fixtures of the tests of cells in other processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scaling.testing import ScriptedServer


@pytest.fixture
def sweep_server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running
