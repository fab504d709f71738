"""What is stored stays what it was: a damaged answer is asked for again, and what was spent outlives the cache."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.records.record import Answer
from scaling.testing import ScriptedServer
from scaling.types import EXIT_CAP, EXIT_OK, CellStopped, UsageError
from tests.support.files import read
from tests.support.questions import a_model, ask
from tests.support.sweeps import outcome, run, write_study

ANSWER = Answer(outputs=["yes"], prompt_tokens=3, completion_tokens=1, list_cost_usd=2e-5, latency_seconds=0.5)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A cache with one answer under the key 'k', and its bill of 2e-5 dollars."""
    cache = Cache(tmp_path / "c.sqlite")
    cache.settle_bill(cache.open_bill("cell", "model", "evaluate", 1.0), 2e-5, ("k", ANSWER))
    cache.close()
    return tmp_path / "c.sqlite"


def change(path: Path, how: Callable[[bytes], bytes]) -> None:
    """Change every stored answer."""
    with sqlite3.connect(path) as database:
        for key, value in database.execute("SELECT key, value FROM responses").fetchall():
            database.execute("UPDATE responses SET value = ? WHERE key = ?", (how(value), key))


def of_an_earlier_version(value: bytes) -> bytes:
    return value[value.index(b"\x78\x01") :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda value: value[:-9] + bytes([value[-9] ^ 1]) + value[-8:],
    "cut": lambda value: value[:-5],
    "empty": lambda value: b"",
    "of zeros": lambda value: bytes(len(value)),
    "text": lambda value: "word",
    "another answer": lambda value: value[:23] + zlib.compress(b'{"outputs": ["no"]}', 1),
    "an earlier version's, cut": lambda value: of_an_earlier_version(value)[:-3],
    "an earlier version's, no answer": lambda value: zlib.compress(b"[1]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_answer_counts_as_none(stored: Path, damage: Callable[[bytes], bytes]) -> None:
    change(stored, damage)
    cache = Cache(stored)
    assert cache.get("k") is None
    assert (cache.damaged, cache.spent_usd()) == (1, 2e-5)
    cache.settle_bill(cache.open_bill("cell", "model", "evaluate", 1.0), 3e-5, ("k", ANSWER))
    assert cache.get("k") == ANSWER
    assert cache.spent_usd() == pytest.approx(5e-5)


def test_an_answer_under_another_key_is_none(stored: Path) -> None:
    with sqlite3.connect(stored) as database:
        database.execute("UPDATE responses SET key = 'other'")
    cache = Cache(stored)
    assert cache.get("other") is None and cache.get("k") is None
    assert cache.damaged == 1


def test_answers_and_bills_of_an_earlier_version_count(stored: Path, tmp_path: Path) -> None:
    change(stored, of_an_earlier_version)
    with sqlite3.connect(stored) as database, sqlite3.connect(tmp_path / "c-ledger.sqlite") as ledger:
        (schema,) = ledger.execute("SELECT sql FROM sqlite_master WHERE name = 'bills'").fetchone()
        database.execute(schema)
        for number, usd in enumerate((0.25, 0.5)):
            row = (float(number), "cell", "model", "evaluate", usd, "settled")
            database.execute("INSERT INTO bills (at, cell_id, model, phase, usd, state) VALUES (?, ?, ?, ?, ?, ?)", row)
    for _ in range(2):  # taken over once
        cache = Cache(stored)
        assert cache.get("k") == ANSWER
        assert cache.spent_usd() == pytest.approx(0.75 + 2e-5)
        cache.close()


def test_what_was_spent_is_known_without_the_cache(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    flags = write_study(tmp_path, sweep_server.url, [1], ["none"], 1)
    assert run(flags, tmp_path / "out")[0] == EXIT_OK
    spent = sweep_server.prompt_tokens * 3e-6 + sweep_server.completion_tokens * 11e-6
    shutil.move(tmp_path / "out" / ".cache", tmp_path / "moved")
    next((tmp_path / "out").rglob("results.json")).unlink()
    code, said = run([*flags, "--max-cost", str(spent)], tmp_path / "out")
    assert code == EXIT_CAP, said
    assert read(tmp_path / "out" / "sweep.json")["spent_usd"] == pytest.approx(spent)


def test_damaged_answers_are_paid_for_again_and_told(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    flags = write_study(tmp_path, sweep_server.url, [1], ["none"], 1)
    assert run(flags, tmp_path / "out")[0] == EXIT_OK
    asked, before = sweep_server.calls, outcome(tmp_path / "out")
    change(tmp_path / "out" / ".cache" / "responses.sqlite", DAMAGE["a bit"])
    next((tmp_path / "out").rglob("results.json")).unlink()
    code, said = run(flags, tmp_path / "out")
    assert code == EXIT_OK
    assert sweep_server.calls == 2 * asked
    assert f"note: {asked} stored answers were damaged and were asked for again" in said
    assert outcome(tmp_path / "out") == before
    spent = sweep_server.prompt_tokens * 3e-6 + sweep_server.completion_tokens * 11e-6
    assert read(tmp_path / "out" / "sweep.json")["spent_usd"] == pytest.approx(spent)


def test_a_cache_whose_pages_are_damaged_ends_the_sweep_before_it_pays(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    path = tmp_path / "c.sqlite"
    cache = Cache(path)
    for number in range(200):
        cache.settle_bill(cache.open_bill("c", "m", "evaluate", 0.0), 0.0, (f"{number:064d}", ANSWER))
    cache.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises((CellStopped, UsageError), match=r"move .*c\.sqlite|c\.sqlite cannot be used"):
        ask(make_lm(a_model(sweep_server), Gateway(Cache(path)), Meter("c"), 0, 0.7), "one")
    assert not sweep_server.requests


@pytest.mark.parametrize(("name", "advice"), [("c.sqlite", "Move it away"), ("c-ledger.sqlite", "whole copy")])
def test_a_file_that_is_no_database_is_named_with_what_to_do(stored: Path, name: str, advice: str) -> None:
    stored.with_name(name).write_text(json.dumps({"no": "database"}) * 100)
    with pytest.raises(UsageError, match=f"{name} cannot be used.*{advice}"):
        Cache(stored)
    stored.with_name(name).unlink()
    Cache(stored).close()  # the folder is free
