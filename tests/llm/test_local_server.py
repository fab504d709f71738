"""The embedded model's server, without the model: how its threads are chosen."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from scaling.llm import local_server
from scaling.llm.weights import ModelFile

FILE = ModelFile(Path("weights.gguf"), size_bytes=100, context=4096, context_bytes=1.0, parameters=10)


class FakeLibrary:
    """Stands for xllamacpp: keeps the parameters of its server and the environment at its import."""

    def __init__(self) -> None:
        self.policy: str | None = None
        self.params = SimpleNamespace(
            model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
        )

    def import_module(self, name: str) -> FakeLibrary:
        assert name == "xllamacpp"
        self.policy = os.environ.get("OMP_WAIT_POLICY")
        return self

    def CommonParams(self) -> SimpleNamespace:
        return self.params

    def Server(self, params: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(listening_address="http://127.0.0.1:1")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    fake = FakeLibrary()
    monkeypatch.setattr(importlib, "import_module", fake.import_module)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    return fake


@pytest.mark.parametrize(
    ("cores", "generating", "reading"), [(1, 1, 1), (2, 1, 2), (4, 2, 4), (64, 4, 8)], ids=lambda value: str(value)
)
def test_half_of_the_cores_generate_and_all_read(
    cores: int, generating: int, reading: int, library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "usable_cores", lambda: cores)
    with local_server.serve(FILE) as address:
        assert address == "http://127.0.0.1:1/v1"
    assert (library.params.cpuparams.n_threads, library.params.cpuparams_batch.n_threads) == (generating, reading)


def test_threads_sleep_while_they_wait_and_the_environment_is_left_as_it_was(library: FakeLibrary) -> None:
    with local_server.serve(FILE):
        assert library.policy == "passive"
        assert "OMP_WAIT_POLICY" not in os.environ


def test_the_users_own_choice_of_waiting_is_kept(library: FakeLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with local_server.serve(FILE):
        assert library.policy == "active"
        assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_only_cores_that_this_process_may_use_count() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert local_server.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_larger_model_uses_all_cores_and_its_own_context(
    library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "usable_cores", lambda: 64)
    with local_server.serve(replace(FILE, size_bytes=4_000_000_000, context_bytes=600 * 2**20)):
        assert (library.params.cpuparams.n_threads, library.params.cpuparams_batch.n_threads) == (32, 64)
        assert library.params.n_ctx == 4096
        assert library.params.cache_ram_mib == 600
