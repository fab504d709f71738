"""A user's own CSV as a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import run_scaling_experiment as script
from benchmarks import own_csv
from scaling.data import load_benchmark, shrink
from scaling.testing import ScriptedServer
from tests.support.benchmarks import score
from tests.support.files import read


def write_csv(path: Path, count: int = 60, header: str = "ID,Question,ANSWER") -> Path:
    lines = [f'q{i},"what, in words, is {i} + {i}?",{2 * i}' for i in range(count)]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("1200", "$1,200.00", 1),
        ("50%", "50", 1),
        ("New York", "new  york.", 1),
        ("12", "twelve", 0),
        ("12", "12 or 13", 0),
        ("12 apples", "12", 0),
    ],
)
def test_own_answers_are_compared_as_numbers_or_words(gold: str, answer: str, right: int) -> None:
    assert score(own_csv, {"answer": gold}, answer) == right


@pytest.mark.parametrize(
    ("count", "sizes"), [(12, (3, 3, 6)), (60, (15, 15, 30)), (400, (50, 100, 200)), (1200, (50, 100, 500))]
)
def test_seeds_come_from_the_number_of_rows(tmp_path: Path, count: int, sizes: tuple[int, int, int]) -> None:
    entry = own_csv.entry(write_csv(tmp_path / "mine.csv", count))
    assert tuple(len(entry[part]) for part in ("train_seeds", "val_seeds", "test_seeds")) == sizes
    loaded = load_benchmark("mine", entry, "hub")
    assert loaded.source == str(tmp_path / "mine.csv")
    assert {row["id"] for row in loaded.train + loaded.test} == {f"q{i}" for i in range(count)}
    assert shrink(loaded, 50, 100, 500)[2] == sizes[2]


def test_a_csv_is_a_benchmark_by_its_path(
    command: Callable[..., list[str]],
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(script, "BENCHMARK_CONFIG", dict(script.BENCHMARK_CONFIG))
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "my sums.csv")
    line = command(benchmarks=None, data="hub")

    assert script.main([*line, "--benchmarks", "data/my sums.csv"]) == 0
    assert server.calls == 20
    record = read(tmp_path / "out" / "my sums" / "1step" / "none" / "openai-scripted" / "run0" / "results.json")
    assert record["status"] == "ok" and record["cell"]["benchmark"] == "my sums"
    assert record["data"]["source"] == "data/my sums.csv" and not record["sample"]
    capsys.readouterr()
    assert script.main([*line, "--benchmarks", "data/my sums.csv"]) == 0  # the same command finds its cell settled
    assert server.calls == 20


BAD_FILES = [
    (b"", "empty"),
    (b"prompt,target\na,b\n", "no column 'question'; its columns are prompt, target"),
    (b"question,Question,answer\na,b,c\n", "more than one column 'question'"),
    (b"question,answer\nna\xefve?,yes\n", "not UTF-8"),
    (b"question,answer\na,1\nb,2\n", "2 rows; at least 12"),
    (b"question,answer\n" + b"a,1\n" * 20 + b"b\n", "row 21 has no answer"),
    (b"question,answer\na," + b"x" * 200_000 + b"\n", "not CSV"),
    (None, "cannot read"),
]


@pytest.mark.parametrize(("content", "says"), BAD_FILES, ids=[says for _, says in BAD_FILES])
def test_a_csv_that_cannot_be_used_is_refused(
    command: Callable[..., list[str]],
    refused: Callable[[list[str]], str],
    tmp_path: Path,
    content: bytes | None,
    says: str,
) -> None:
    if content is not None:
        (tmp_path / "mine.csv").write_bytes(content)
    said = refused(command(benchmarks="mine.csv"))
    assert "mine.csv" in said and says in said


@pytest.mark.parametrize("names", ["banking77.csv", "a/mine.csv b/mine.csv"])
def test_a_csv_with_the_name_of_another_benchmark_is_refused(
    command: Callable[..., list[str]],
    refused: Callable[[list[str]], str],
    tmp_path: Path,
    names: str,
) -> None:
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_csv(tmp_path / name)
    assert "another benchmark called" in refused(command(benchmarks=names))
