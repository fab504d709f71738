"""`python -m benchmarks.prepare`: from a release as it was published to the folder that `--data DIR` reads."""

from __future__ import annotations

import csv
import json
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from benchmarks import prepare, sources
from benchmarks.toolqa.tools import make_tools
from scaling.data import load_benchmark, shrink
from scaling.types import Benchmark, UsageError
from tests.support.benchmarks import REAL_ROWS, bench, real, sample
from tests.support.files import lines, tree
from tests.support.releases import write_lines, write_toolqa

DOMAINS = ("agenda", "airbnb", "coffee", "dblp", "flight", "gsm8k", "scirex", "yelp")


def questions() -> list[dict[str, Any]]:
    """Real rows of ToolQA where they are, else made-up ones of every domain and difficulty."""
    path = REAL_ROWS / "toolqa" / "test.jsonl"
    if path.exists():
        return lines(path)
    return [
        {"qid": f"{d}-{domain}-{i}", "question": f"What is {i}?", "answer": "1", "domain": domain, "difficulty": d}
        for domain in DOMAINS for d in ("easy", "hard") for i in range(20) if (domain, d) != ("gsm8k", "hard")
    ]  # fmt: skip


@pytest.fixture(scope="module")
def toolqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DIR of ToolQA's release with four of its seven corpora."""
    folder = tmp_path_factory.mktemp("toolqa")
    write_toolqa(folder / "release", questions())
    assert prepare.main(["toolqa", "--from", str(folder / "release"), "--out", str(folder / "data")]) == 0
    return folder / "data"


def loaded(name: str, folder: Path) -> Benchmark:
    return load_benchmark(name, script.BENCHMARK_CONFIG[name], str(folder))


def tools(folder: Path) -> dict[str, Callable[..., str]]:
    return {tool.name: tool for tool in make_tools(str(folder))}


def test_toolqa_keeps_the_questions_that_its_corpora_answer(toolqa: Path) -> None:
    rows = loaded("toolqa", toolqa).train
    there = {"agenda", "dblp", "flight", "yelp", "gsm8k"}
    wanted = Counter((row["domain"], row["difficulty"]) for row in questions() if row["domain"] in there)
    assert Counter((row["domain"], row["difficulty"]) for row in rows) == wanted
    texts = {row["question"] for row in questions()}
    assert {row["question"] for row in rows} <= texts


def test_what_is_missing_of_toolqa_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    release = write_toolqa(tmp_path / "release", questions())
    assert prepare.main(["toolqa", "--from", str(release), "--out", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "tables of agenda, dblp, flight, yelp" in said
    assert "questions are left out, as the corpora of airbnb, coffee, scirex are not there" in said
    assert f"--benchmarks toolqa --data {tmp_path / 'data'}" in said


def test_without_corpora_all_questions_are_for_closed_book(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    release = write_toolqa(tmp_path / "release", questions())
    assert prepare.main(["toolqa", "--from", str(release / "data" / "questions" / ".."), "--out", str(tmp_path)]) == 0
    (release / "data" / "external_corpus").rename(tmp_path / "elsewhere")
    assert prepare.main(["toolqa", "--from", str(release), "--out", str(tmp_path / "data")]) == 0
    assert "only --closed-book can ask these questions" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--closed-book"):
        make_tools(str(tmp_path / "data"))
    config = script.BENCHMARK_CONFIG["toolqa"]
    assert len(load_benchmark("toolqa", config, str(tmp_path / "data"), closed_book=True).train) == len(questions())


def test_the_tables_of_a_release_are_looked_up(toolqa: Path) -> None:
    table = tools(toolqa)["table"]
    assert table(table="flight", where="FlightDate = 2022-01-19", answer="count") == "2"
    assert table(table="flight", where="Origin = fat", columns="DepDelayMinutes", answer="mean") == "16.5"
    # A cell that is empty is no number and is not compared with one.
    assert table(table="flight", where="DepDelayMinutes < 10", columns="Airline").splitlines() == [
        "Airline",
        "Spirit",
        "Delta",
    ]
    assert table(table="yelp", where="postal_code = 19130", columns="name").split() == ["name", "Snip"]
    assert table(table="yelp", where="name = Smilies", columns="hours") == 'hours\n"{""Monday"": ""9:0-17:0""}"'


def test_the_graph_of_a_release_is_looked_up(toolqa: Path) -> None:
    given = tools(toolqa)
    neighbours = given["table"](table="dblp_coauthors", where="author = Guoxian Yu", columns="coauthor")
    assert neighbours.splitlines()[1:] == ["Qiaoyu Tan", "Lili He"]
    edge = "author = Guoxian Yu; coauthor = Qiaoyu Tan"
    assert given["table"](table="dblp_coauthors", where=edge, columns="citations_together, titles").endswith(
        "10,Leak; Search"
    )
    assert given["table"](table="dblp_papers", where="title = Leak", columns="venue, n_citation").endswith("ICLR,7")
    assert given["table"](table="dblp_citations", where="title = Search", columns="cites").endswith("Leak")
    shared = (
        "SELECT count(*) FROM dblp_coauthors a JOIN dblp_coauthors b ON a.coauthor = b.coauthor "
        "WHERE a.author = 'Guoxian Yu' AND b.author = 'Qiaoyu Tan'"
    )
    assert given["sql"](query=shared).splitlines()[1] == "1"


def test_texts_are_found_by_their_rare_words(toolqa: Path) -> None:
    search = tools(toolqa)["search_texts"]
    assert (
        search(table="agenda", words="When did Grace attend the Broadway Show?").splitlines()[0].startswith("1, Grace")
    )
    assert search(table="agenda", words="zebra") == "no row holds any of these words"
    assert search(table="agenda", words="?!").startswith("error: give words")
    assert search(table="nothing", words="x").startswith("error: no table 'nothing'; there are: agenda")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ('SELECT Airline, count(*) FROM flight GROUP BY ALL ORDER BY 2 DESC', "Delta, 3"),
        ('SELECT max(Distance) FROM flight', "844.0"),
        ("DROP TABLE t0", "give one SELECT"), ("INSERT INTO t0 VALUES (1)", "give one SELECT"),
        ("SELECT 1; SELECT 2", "give one SELECT"), ("COPY t0 TO 'out.csv'", "give one SELECT"),
        ("SET lock_configuration = false", "give one SELECT"), ("ATTACH 'x.db'", "give one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "error: "), ("SELECT * FROM '/etc/passwd'", "error: "),
        ("SELECT * FROM read_text('/etc/hostname')", "error: "), ("SELECT getenv('HOME')", "error: "),
        ("SELECT nothing FROM flight", "error: "), ("SELECT 'x' || repeat(' ', 3000)" + " " * 3000, "at most 2000"),
    ],
)  # fmt: skip
def test_sql_reads_the_tables_and_nothing_else(toolqa: Path, query: str, said: str) -> None:
    before = tree(toolqa)
    assert said in tools(toolqa)["sql"](query=query)
    assert tree(toolqa) == before


def test_a_query_without_end_is_interrupted(toolqa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.toolqa.prepared_tools.SECONDS", 0.05)
    endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range % 7 = b.range % 11"
    assert "took longer than 0.05 seconds" in tools(toolqa)["sql"](query=endless)


def test_prepared_tables_are_other_cells_than_the_csv_files_alone(toolqa: Path, tmp_path: Path) -> None:
    prepared = {row["corpora"] for row in loaded("toolqa", toolqa).train}
    corpora = tmp_path / "toolqa" / "corpora"
    corpora.mkdir(parents=True)
    for path in (toolqa / "toolqa" / "corpora").glob("*.csv"):
        (corpora / path.name).write_bytes(path.read_bytes())
    write_lines(tmp_path / "toolqa" / "test.jsonl", lines(toolqa / "toolqa" / "test.jsonl"))
    plain = {row["corpora"] for row in loaded("toolqa", tmp_path).train}
    assert prepared == {f"{digest}-prepared" for digest in plain}
    assert set(tools(tmp_path)) == {"calculator", "table"}
    assert set(tools(toolqa)) == {"calculator", "table", "search_texts", "sql"}


def test_a_database_of_other_tables_is_refused(tmp_path: Path) -> None:
    release = write_toolqa(tmp_path / "release", questions())
    assert prepare.main(["toolqa", "--from", str(release), "--out", str(tmp_path / "data")]) == 0
    with (tmp_path / "data" / "toolqa" / "corpora" / "flight.csv").open("a") as file:
        file.write("2022-05-18,Delta,FAT,LAX,False,1.0,209.0\n")
    with pytest.raises(UsageError, match="was made from other CSV files than those beside it"):
        make_tools(str(tmp_path / "data"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made-by-a-pickle",)


def test_a_pickle_that_is_no_data_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    release = write_toolqa(tmp_path / "release", questions())
    (release / "data/external_corpus/dblp/author_net.pkl").write_bytes(pickle.dumps({"a": Evil()}))
    monkeypatch.chdir(tmp_path)
    assert prepare.main(["toolqa", "--from", str(release), "--out", str(tmp_path / "data")]) == 2
    said = capsys.readouterr().err
    assert "author_net.pkl cannot be read" in said and "which is no data" in said
    assert not (tmp_path / "made-by-a-pickle").exists()
    assert not list((tmp_path / "data").iterdir())


def write_mathbench(folder: Path) -> Path:
    choices = [row for row in sample("mathbench") if "options" in row]
    cloze = [row for row in sample("mathbench") if "options" not in row]
    write_lines(folder / "mathbench_v1" / "primary" / "cloze_en.jsonl", cloze)
    write_lines(folder / "mathbench_v1" / "primary" / "cloze_cn.jsonl", cloze)
    write_lines(folder / "mathbench_v1" / "college" / "single_choice_en.jsonl", choices[:20])
    write_lines(folder / "mathbench_v1" / "college_knowledge" / "single_choice_en.jsonl", choices[20:])
    return folder


def test_mathbench_keeps_its_levels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    release = write_mathbench(tmp_path / "release")
    assert prepare.main(["mathbench", "--from", str(release), "--out", str(tmp_path / "data")]) == 0
    assert "1 files in Chinese are left out" in capsys.readouterr().out
    rows = loaded("mathbench", tmp_path / "data").train
    assert len(rows) == len(sample("mathbench"))
    assert {(row["level"], row["kind"]) for row in rows} == {("primary", "open"), ("college", "choice")}
    assert "level" not in bench("mathbench").train[0]  # the sample's cells keep their ids


def write_superglue(folder: Path) -> Path:
    if not REAL_ROWS.is_dir():
        pytest.skip("no real rows beside this clone")
    rte, boolq = REAL_ROWS / "superglue" / "rte", REAL_ROWS / "superglue" / "boolq"
    names = ("entailment", "not_entailment")
    for side, stem in (("train", "train"), ("validation", "val")):
        rows = [row | {"label": names[row["label"]]} for row in lines(rte / f"{side}.jsonl")]
        write_lines(folder / "RTE" / f"{stem}.jsonl", rows)
    rows = [row | {"label": bool(row["label"])} for row in lines(boolq / "validation.jsonl")]
    write_lines(folder / "BoolQ" / "val.jsonl", rows)
    write_lines(folder / "RTE" / "test.jsonl", [{"premise": "a", "hypothesis": "b", "idx": 0}])
    target = {"span1_text": "Mark", "span2_text": "him", "span1_index": 0, "span2_index": 4}
    write_lines(
        folder / "WSC" / "train.jsonl", [{"text": "Mark told Pete of him.", "target": target, "label": True}] * 2
    )
    return folder


@real
def test_superglue_is_the_hubs_rows(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    release = write_superglue(tmp_path / "release")
    assert prepare.main(["superglue", "--from", str(release), "--out", str(tmp_path / "data")]) == 0
    assert "not there: cb, copa, wic" in capsys.readouterr().out
    mine, hubs = loaded("superglue/rte", tmp_path / "data"), loaded("superglue/rte", REAL_ROWS)
    assert (mine.train, mine.test) == (hubs.train, hubs.test)
    loose = loaded("superglue", tmp_path / "data")
    spans = [row for row in loose.train if row["subtask"] == "wsc.fixed"]
    assert "Does 'him' stand for 'Mark' in the text?" in spans[0]["text"] and spans[0]["answer"] == "True"


@real
def test_a_fixed_sample_is_the_same_each_time_and_even(tmp_path: Path) -> None:
    release = write_superglue(tmp_path / "release")
    for out in ("one", "two"):
        flags = ["superglue", "--from", str(release), "--out", str(tmp_path / out), "--rows", "100"]
        assert prepare.main(flags) == 0
    one, two = loaded("superglue", tmp_path / "one"), loaded("superglue", tmp_path / "two")
    assert one.test == two.test and one.test is not None
    assert Counter(row["subtask"] for row in one.test) == {"boolq": 50, "rte": 50}
    assert len([row for row in one.train if row["subtask"] == "rte"]) == 2490


@real
def test_a_sample_of_one_pool_leaves_groups_for_train(toolqa: Path, tmp_path: Path) -> None:
    release = write_toolqa(tmp_path / "release", questions())
    flags = ["toolqa", "--from", str(release), "--out", str(tmp_path / "data"), "--rows", "100"]
    assert prepare.main(flags) == 0
    bench = loaded("toolqa", tmp_path / "data")
    assert bench.test is not None and len(bench.test) == 100
    categories = Counter((row["domain"], row["difficulty"]) for row in bench.test)
    assert len(categories) >= 8 and max(categories.values()) <= 2 * min(categories.values()) + 1
    ids = {row["id"] for row in bench.test}
    assert not ids & {row["id"] for row in bench.train}
    train, val, test = shrink(bench, 50, 100, 100)
    assert (train, val, test) == (50, 100, 100)


def test_a_csv_of_questions_is_a_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    release = write_mathbench(tmp_path / "release")
    flags = ["mathbench", "--from", str(release), "--out", str(tmp_path / "data"), "--rows", "30", "--csv"]
    assert prepare.main(flags) == 0
    path = tmp_path / "data" / "mathbench.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 and set(rows[0]) == {"id", "question", "answer", "group"}
    path = path.rename(tmp_path / "own.csv")
    assert (
        script.main(["--benchmarks", str(path), "--models", "local/smollm2-135m", "--optimizers", "none", "--dry-run"])
        == 0
    )
    assert "own 7 train, 7 val, 16 test" in capsys.readouterr().out


def test_sizes_that_cannot_be_filled_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    release = write_mathbench(tmp_path / "release")
    assert prepare.main(["mathbench", "--from", str(release), "--out", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "the sizes of mathbench (50 train, 100 val, 500 test) cannot be filled for train, val and test" in said


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_a_folder_in_the_hubs_columns_is_taken_in_any_format(tmp_path: Path, ending: str) -> None:
    import pandas

    rows = pandas.DataFrame(sample("gsm8k"))[["question", "answer"]]
    release = tmp_path / "release"
    release.mkdir()
    for stem, part in (("train-00000-of-00001", rows[:60]), ("test-00000-of-00001", rows[60:])):
        path = release / f"{stem}.{ending}"
        if ending == "csv":
            part.to_csv(path, index=False)
        elif ending == "parquet":
            part.to_parquet(path)
        else:
            part.to_json(path, orient="records", lines=ending == "jsonl")
    assert prepare.main(["gsm8k", "--from", str(release), "--out", str(tmp_path / "data")]) == 0
    found = loaded("gsm8k", tmp_path / "data")
    assert found.test is not None and (len(found.train), len(found.test)) == (60, len(rows) - 60)
    assert [row["question"] for row in found.train] == [text.strip() for text in rows["question"][:60]]


def test_from_the_hub_labels_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted({row["label"] for row in sample("banking77")})
    rows = [row | {"label": names.index(row["label"])} for row in sample("banking77")]
    read = {"train": rows[:200], "test": rows[200:], "revision": "abc123", "label_names": names}
    monkeypatch.setattr(sources, "_read_hub", lambda hub, name: dict(read))
    assert prepare.main(["banking77", "--out", str(tmp_path)]) == 0
    found = loaded("banking77", tmp_path)
    assert [row["intent"] for row in found.train] == [row["label"] for row in sample("banking77")[:200]]

    def subtask(hub: dict[str, Any], name: str) -> dict[str, Any]:
        rows = [row for row in sample("superglue") if row["subtask"] == hub["name"]]
        return {"train": rows[:30], "test": rows[30:], "revision": "abc123", "label_names": None}

    monkeypatch.setattr(sources, "_read_hub", subtask)
    assert prepare.main(["superglue", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in (tmp_path / "superglue").iterdir()) == sorted(
        ["boolq", "cb", "copa", "rte", "wic", "wsc.fixed"]
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["nothing"], "unknown benchmark 'nothing'; possible: banking77"),
        (["toolqa"], "is not on the Hugging Face hub"),
        (["toolqa", "--from", "nowhere"], "there is no such folder"),
        (["toolqa", "--from", "."], "no file questions/easy"),
        (["mathbench", "--from", "."], "no file LEVEL/*_en.jsonl"),
        (["superglue", "--from", "."], "no folder of a subtask"),
        (["gsm8k", "--from", "."], "it holds no .jsonl"),
        (["gsm8k", "--rows", "0"], "at least 1 is needed"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, flags: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare.main([*flags, "--out", "data"]) == 2
    printed = capsys.readouterr().err
    assert said in printed and len(printed.strip().splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    release = write_mathbench(tmp_path / "release")
    write_lines(tmp_path / "data" / "mathbench" / "test.jsonl", [{"mine": 1}])
    assert prepare.main(["mathbench", "--from", str(release), "--out", str(tmp_path / "data")]) == 2
    assert "exists. Give another --out" in capsys.readouterr().err
    assert json.loads((tmp_path / "data/mathbench/test.jsonl").read_text()) == {"mine": 1}
