"""ToolQA: answers that only its tables hold, tools that change nothing, and steps that call them and are counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dspy
import pytest

import run_scaling_experiment as script
from benchmarks import toolqa
from benchmarks.toolqa.data import load
from benchmarks.toolqa.tables import open_tables
from benchmarks.toolqa.tools import SAMPLE, calculate, look_up, make_tools
from scaling.analysis.loading import load as load_results
from scaling.analysis.report import notes_of
from scaling.data import load_benchmark
from scaling.planning.budgets import MAX_TOOL_TURNS
from scaling.run.pipelines import MultiStepClassifier
from scaling.testing import Body, ScriptedServer, last_user_message, whole_prompt
from scaling.types import UsageError
from tests.support import islands
from tests.support.files import lines

REAL_ROWS = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not (REAL_ROWS / "toolqa").is_dir(), reason="no real rows beside this clone")
TABLES = open_tables(SAMPLE)
assert TABLES is not None
ROWS = {row["question"]: row for row in load("sample")["train"]}
TOOLQA = {"benchmark": "toolqa", "test_size": 4, "train_size": 10, "val_size": 20, "max_concurrency": 4}


def section(**fields: str) -> str:
    return "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in fields.items()) + "[[ ## completed ## ]]"


def question_of(body: Body) -> str:
    return max((q for q in ROWS if q in last_user_message(body)), key=len)


def turn(name: str, **arguments: str) -> str:
    return section(next_thought="Look.", next_tool_name=name, next_tool_args=json.dumps(arguments))


def player(body: Body) -> str:
    """A model that counts the ferries, finishes, and answers right; notes in the other roles."""
    asked = last_user_message(body).rpartition("Respond with")[2]
    if "next_tool_name" not in asked:
        name = "answer" if "`[[ ## answer ## ]]`" in asked else asked.split("`[[ ## ")[2].split(" ")[0]
        return section(reasoning="It is so.", **{name: ROWS[question_of(body)]["answer"]})
    if "observation_0" not in last_user_message(body):
        return turn("table", table="ferries", answer="count")
    return turn("finish")


def test_the_tables_hold_every_answer_of_the_sample() -> None:
    found = islands.tables()
    assert 4 <= len(found) <= 6 and all(24 <= len(frame) <= 60 for frame in found.values())
    raw = [json.loads(line) for line in (SAMPLE.parent / "sample.jsonl").read_text().splitlines()]
    assert len(raw) >= 80
    for row in raw:
        assert set(row) == {"qid", "question", "answer", "domain", "difficulty"}
        assert islands.solve(row["question"], found) == row["answer"], row
    groups = Counter(row["group"] for row in ROWS.values())
    assert len(groups) == len(islands.SOLVERS) and max(groups.values()) == 6


@real
def test_real_rows_have_ids_of_their_own_and_templates() -> None:
    rows = load(str(REAL_ROWS))["train"]
    assert len({row["id"] for row in rows}) == len(rows) == 1530
    assert 60 <= len({row["group"] for row in rows if row["domain"] != "gsm8k"}) <= 130
    for row in rows:
        assert toolqa.metric(dspy.Example(**row), dspy.Prediction(answer=row["answer"])) == 1.0


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", "14"), ("(1 - 0.25) * 8", "6"), ("7 // 2 - -1", "4"), ("2 ^ 10", "1024"), ("sqrt(16)", "4"),
        ("max(1, 3, 2)", "3"), ("round(10 / 3, 2)", "3.33"), ("1 / 0", "error"), ("2 ** 10 ** 9", "error"),
        ("10 ** 1000 ** 1000", "error"), ("__import__('os')", "error"), ("().__class__", "error"), ("a + 1", "error"),
        ("'a' * 10 ** 9", "error"), ("1 +", "error"), ("(" * 500, "error"), ("9" * 400, "error"), ("True + 1", "error"),
    ],
)  # fmt: skip
def test_the_calculator_knows_arithmetic_and_nothing_else(expression: str, value: str) -> None:
    assert calculate(expression).startswith(value)


def test_the_table_tool_filters_shows_and_counts() -> None:
    frame = islands.tables()["staff"]
    assert look_up(TABLES, "staff", answer="count") == str(len(frame))
    assert look_up(TABLES, "staff", "hours >= 24; office = map room", "person", "count") == str(
        len(frame.query("hours >= 24 and office == 'Map Room'"))
    )
    person = frame.iloc[0]
    assert look_up(TABLES, "staff", f"person = {person.person}", "room").split() == ["room", person.room]
    assert look_up(TABLES, "staff", "", "hours", "mean") == f"{frame['hours'].mean():.12g}"
    assert look_up(TABLES, "concerts", "date > 2031-06-01", "date", "min") > "2031-06-01"
    assert "20 shown" in look_up(TABLES, "staff")
    assert look_up(TABLES, "staff", "person ~ nobody").startswith("no row")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "there are: books"), (("staff", "wage = 3"), "no column 'wage'"), (("staff", "hours"), "write"),
        (("staff", "", "hours, room", "sum"), "needs one column"), (("../secret",), "no table"),
        (("staff", "hours = 9999", "hours", "max"), "no row"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_up_is_said(arguments: tuple, said: str) -> None:
    assert said in look_up(TABLES, *arguments)


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("147.0", "147", 1), ("$ 42450.0", "42,450 USD", 1), ("1.7%", "1.7", 1), ("1.7%", "1.8%", 0), ("-5", "5", 0),
        ("8:00 PM", "8:00 pm.", 1), ("8:00 PM", "8:30 PM", 0), ("The Lantern", "lantern", 1), ("3:00:00", "3", 0),
        ("Matched, Mismatched", "matched, mismatched", 1), ("22M", "22", 0), ("5", None, 0), ("10", "ten", 0),
    ],
)  # fmt: skip
def test_answers_match_as_numbers_or_as_normalised_text(gold: str, answer: str | None, right: int) -> None:
    assert toolqa.metric(dspy.Example(answer=gold), dspy.Prediction(answer=answer)) == right


@pytest.mark.parametrize("steps", [1, 3])
def test_a_chain_calls_its_tools_and_every_call_is_counted(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, steps: int
) -> None:
    server.answer = player
    record = experiment(**TOOLQA, num_steps=steps)

    assert record["status"] == "ok", record["error"]
    assert record["final_score"] == 1.0
    # In each step a look-up, the end of looking up, and the answer.
    assert record["lm_calls_per_example"] == 3 * steps and server.calls == 3 * steps * (record["n"] + record["check_n"])
    for line in lines(tmp_path / "cell/predictions.jsonl"):
        assert line["calls"] == 3 * steps
        assert [call["name"] for call in line["tool_calls"]] == ["table"] * steps
        assert line["tool_calls"][0]["arguments"] == {"table": "ferries", "answer": "count"}
        assert line["tool_calls"][0]["result"] == str(len(islands.tables()["ferries"]))
        assert line["tool_calls"][-1]["step"] == "classifier"


def test_optimizers_see_the_predictors_of_each_role() -> None:
    program = MultiStepClassifier(toolqa.ToolQA, 2, tools=make_tools("sample"))
    assert [name for name, _ in program.named_predictors()] == [
        "analyzer.react", "analyzer.extract.predict", "classifier.react", "classifier.extract.predict",
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["look-up", "answer"])
def test_an_unparseable_turn_is_a_scored_failure(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, where: str
) -> None:
    spoilt = "observation_0" if where == "look-up" else "observation_1"
    server.answer = lambda body: "Hm." if spoilt in last_user_message(body) else player(body)
    record = experiment(**TOOLQA)

    for line in lines(tmp_path / "cell/predictions.jsonl"):
        assert (line["error"], line["score"], line["prediction"]) == ("parse", 0.0, None)
        assert len(line["tool_calls"]) == 1
    assert record["status"] == "ok" and record["error_rates"]["parse"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [('"colour": 3', "error: ValueError: Arg colour"), ('"answer": 5', "error: ValueError: Arg answer is invalid")],
)
def test_a_tool_that_is_called_wrongly_answers_in_one_line(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, arguments: str, says: str
) -> None:
    server.answer = lambda body: player(body).replace('"answer": "count"', arguments)
    experiment(**TOOLQA)
    (line, *_) = lines(tmp_path / "cell/predictions.jsonl")
    assert line["tool_calls"][0]["result"].startswith(says)
    assert not any(
        "Traceback" in whole_prompt(body) or "site-packages" in whole_prompt(body) for body in server.requests
    )


def test_looking_up_without_end_is_bounded(experiment: Callable, server: ScriptedServer) -> None:
    server.answer = lambda body: player(body).replace("finish", "calculator").replace("{}", '{"expression": "1"}')
    assert experiment(**TOOLQA)["lm_calls_per_example"] == MAX_TOOL_TURNS + 1


@pytest.mark.parametrize("optimizer", ["gepa", "mipro", "bootstrap"])
def test_optimizers_work_on_steps_with_tools(experiment: Callable, server: ScriptedServer, optimizer: str) -> None:
    default = server.default_answer

    def answer(body: Body) -> str:
        asked = last_user_message(body)
        plays = any(q in asked for q in ROWS) and ("next_tool_name" in asked or "`[[ ## answer ## ]]`" in asked)
        # Wrong on some, so that there is something to reflect on.
        return player(body).replace("Sollan", "Hagby") if plays else default(body)

    server.answer = answer
    record = experiment(**TOOLQA, optimizer=optimizer)
    assert record["status"] == "ok", record["error"]
    assert record["rollouts_used"] >= 20


def test_without_tables_the_error_names_the_folder_and_the_flag(tmp_path: Path) -> None:
    room = tmp_path / "toolqa"
    room.mkdir()
    (room / "test.jsonl").write_text((SAMPLE.parent / "sample.jsonl").read_text())
    config = script.BENCHMARK_CONFIG["toolqa"]
    with pytest.raises(UsageError, match=r"toolqa/corpora.*--closed-book"):
        load_benchmark("toolqa", config, str(tmp_path))
    assert load_benchmark("toolqa", config, str(tmp_path), closed_book=True).tools == ()
    with pytest.raises(UsageError, match="has no tools"):
        load_benchmark("banking77", script.BENCHMARK_CONFIG["banking77"], "sample", closed_book=True)


def test_closed_book_is_another_cell_and_every_output_says_so(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    server.answer = player
    with_tools = experiment(**TOOLQA, output_dir=tmp_path / "results" / "tools")
    closed = experiment(**TOOLQA, output_dir=tmp_path / "results" / "closed", closed_book=True)

    assert closed["cell_id"] != with_tools["cell_id"]
    assert closed["cell"]["closed_book"] and closed["lm_calls_per_example"] == 1
    said = capsys.readouterr().out
    assert "note: closed-book: toolqa" in said and "toolqa closed-book 1step" in said
    results = load_results([tmp_path / "results"])
    notes = notes_of(results, results.cells.iloc[:0])
    assert any(note.startswith("Closed-book") and "toolqa" in note for note in notes)
