"""Turns: each is one call, sees what came before, and is scored; the control draws the first turn again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as distributions

import analyze_results
import run_scaling_experiment as script
from scaling.analysis.findings import Findings
from scaling.analysis.report import report_of, write_latex
from scaling.analysis.self_correction import correction, labels
from scaling.analysis.sentences import notes_of, recommendations
from scaling.records.record import CallRecord, ModelFacts
from scaling.testing import Body, ScriptedServer, last_user_message, whole_prompt
from scaling.types import Cell
from simulations.data import arms
from tests.support.files import lines, read
from tests.support.made_up import write_answers
from tests.support.toy import rows

NO_CHECK = {"val_size": 5}


def is_review(body: Body) -> bool:
    return "earlier_answers" in whole_prompt(body)


def final_lines(folder: Path) -> list[dict]:
    return [line for line in lines(folder / "predictions.jsonl") if line["program"] == "final"]


@pytest.mark.parametrize("turns", [1, 2, 4])
def test_a_turn_is_a_call_and_sees_all_earlier_answers(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, turns: int
) -> None:
    record = experiment(pipeline="self_correct", num_steps=turns, test_size=6, **NO_CHECK)
    assert record["status"] == "ok", record["error"]
    assert server.calls == 6 * turns and record["lm_calls_per_example"] == turns
    assert sum(is_review(body) for body in server.requests) == 6 * (turns - 1)
    for line in final_lines(tmp_path / "cell"):
        assert len(line["turn_scores"]) == turns
        assert line["score"] == line["turn_scores"][-1]
        said = list(line["notes"].values())
        prompts = [body for body in server.requests if message(line["id"]) in last_user_message(body)]
        last = max(prompts, key=lambda body: len(whole_prompt(body)))
        assert all(f"Answer {n + 1}: {answer}" in last_user_message(last) for n, answer in enumerate(said[:-1]))


def message(item: str) -> str:
    return next(row["message"] for row in rows() if row["id"] == item)


def test_the_gain_is_what_turned_right_less_what_turned_wrong(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    server.skill = lambda body: 0.8 if is_review(body) else 0.4
    record = experiment(pipeline="self_correct", num_steps=3, test_size=40, **NO_CHECK)
    turns = record["turns"]
    scores = [line["turn_scores"] for line in final_lines(tmp_path / "cell")]
    assert turns["scores"] == pytest.approx([sum(s[i] for s in scores) / 40 for i in range(3)])
    assert turns["gain"] * 40 == pytest.approx(turns["wrong_to_right"] - turns["right_to_wrong"])
    assert turns["wrong_to_right"] > turns["right_to_wrong"] > 0


def test_an_unusable_first_turn_is_reviewed_and_counted_as_repair(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    server.skill = lambda body: 1.0
    server.answer = lambda body: server.default_answer(body) if is_review(body) else "no sections here"
    record = experiment(pipeline="self_correct", num_steps=2, test_size=10, **NO_CHECK)
    assert record["turns"] == {
        "scores": [0.0, 1.0], "gain": 1.0, "wrong_to_right": 10.0, "right_to_wrong": 0, "format_repairs": 10.0,
    }  # fmt: skip
    assert record["error_rates"]["parse"] == 0
    assert any("(no usable answer)" in last_user_message(body) for body in server.requests)


def test_the_last_turn_is_the_answer_also_when_it_fails(experiment: Callable, server: ScriptedServer) -> None:
    server.skill = lambda body: 1.0
    server.answer = lambda body: "no sections here" if is_review(body) else server.default_answer(body)
    record = experiment(pipeline="self_correct", num_steps=2, test_size=10, **NO_CHECK)
    assert record["final_score"] == 0.0 and record["error_rates"]["parse"] == 1.0
    assert record["turns"]["right_to_wrong"] == 10.0


def test_resample_shares_its_first_draw_with_the_first_turn(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    experiment(pipeline="self_correct", num_steps=1, test_size=8, **NO_CHECK)
    first = list(server.requests)
    experiment(pipeline="resample", num_steps=2, test_size=8, output_dir=tmp_path / "again", **NO_CHECK)
    again = server.requests[len(first) :]
    assert {whole_prompt(body) for body in first} == {whole_prompt(body) for body in again}
    for line in final_lines(tmp_path / "again"):
        assert len(line["turn_scores"]) == 2 and line["score"] == line["turn_scores"][1]


def test_turns_can_be_optimized(experiment: Callable, tmp_path: Path) -> None:
    record = experiment(pipeline="self_correct", num_steps=2, optimizer="gepa")
    assert record["status"] == "ok", record["error"]
    assert set(read(tmp_path / "cell" / "program.json")["instructions"]) == {"answer", "review"}


def test_an_oracle_says_right_or_wrong(experiment: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    record = experiment(pipeline="self_correct", num_steps=2, test_size=20, feedback="oracle", **NO_CHECK)
    assert record["cell"]["feedback"] == "oracle"
    by_item = {line["id"]: line["turn_scores"][0] for line in final_lines(tmp_path / "cell")}
    for item, score in by_item.items():
        (review,) = [b for b in server.requests if is_review(b) and message(item) in last_user_message(b)]
        assert ("It is right." in last_user_message(review)) == (score == 1.0)


def test_cheating_gets_no_verdict_and_is_never_recommended(experiment: Callable, tmp_path: Path) -> None:
    for feedback, steps in (("oracle", 3), ("none", 2)):
        folder = tmp_path / "results" / feedback
        experiment(pipeline="self_correct", num_steps=steps, test_size=20, feedback=feedback, output_dir=folder)
    findings = analyze_results.find([tmp_path / "results"], None, False)
    told = {cell.entry.series.feedback: cell.label for cell in findings.turned}
    assert told["oracle"] == "no verdict (cheating)" and told["none"] != told["oracle"]
    assert not recommendations(findings)  # one cell is left, and of one there is nothing to choose
    assert any("That is cheating" in note for note in notes_of(findings.results, findings.summary))


def test_execution_needs_something_to_run(experiment: Callable) -> None:
    with pytest.raises(script.UsageError, match="nothing that could be run"):
        experiment(pipeline="self_correct", num_steps=2, feedback="execution", **NO_CHECK)


def test_what_is_run_is_told_to_the_next_turn(experiment: Callable, server: ScriptedServer, toy: Callable) -> None:
    toy(execution_feedback=lambda gold, pred: f"Running {pred.label} printed nothing.")
    experiment(pipeline="self_correct", num_steps=2, test_size=3, feedback="execution", **NO_CHECK)
    reviews = [body for body in server.requests if is_review(body)]
    assert len(reviews) == 3 and all("printed nothing." in last_user_message(body) for body in reviews)


def test_feedback_is_of_turns_only_and_in_the_cells_identity(experiment: Callable, tmp_path: Path) -> None:
    chain = experiment(feedback="oracle", output_dir=tmp_path / "a", **NO_CHECK)
    assert chain["cell"]["feedback"] == "none"
    plain = experiment(pipeline="self_correct", output_dir=tmp_path / "b", **NO_CHECK)
    told = experiment(pipeline="self_correct", feedback="oracle", output_dir=tmp_path / "c", **NO_CHECK)
    assert plain["cell_id"] != told["cell_id"]


def draws(count: int, rng: np.random.Generator, items: int = 200, **means: float) -> list[np.ndarray]:
    """Scores (items, 3 runs) of as many draws of one program; a mean other than 0.6 by d0, d1 ..."""
    wanted = {("alpha", "none", k): means.get(f"d{k}", 0.6) for k in range(count)}
    return [arm.scores for arm in arms(rng, wanted, items, 3).values()]


IDS = np.arange(200).astype(str)


def test_a_redraw_is_not_called_churning() -> None:
    """Flips alone are what any redraw makes; before, 97 % of redraws were called so."""
    rng = np.random.default_rng(5)
    told = []
    for _ in range(100):
        first, last, again = draws(3, rng)
        told += labels([correction(first, last, (first, again), IDS)])
    assert told.count("churns") <= 5 and told.count("corrects") + told.count("harms") <= 5


def test_a_turn_is_labelled_by_what_it_does() -> None:
    rng = np.random.default_rng(6)
    first, better, worse, again = draws(4, rng, d1=0.8, d2=0.4)
    (even,) = draws(1, rng, d0=0.5)
    turned = np.where(rng.random(even.shape) < 0.8, 1.0 - even, even)
    cases = {"corrects": (first, better), "harms": (first, worse), "churns": (even, turned)}
    for label, (before, after) in cases.items():
        assert labels([correction(before, after, (first, again), IDS)]) == [label]


def test_equivalence_needs_a_test_of_its_own() -> None:
    """With 200 rows nothing of 3 points can be excluded; with 4,000 a redraw is called one, and a loss of 3 is not."""
    few = draws(3, np.random.default_rng(8))
    assert labels([correction(few[0], few[1], (few[0], few[2]), IDS)]) == ["cannot tell"]
    first, last, again = draws(3, np.random.default_rng(8), items=4000)
    ids = np.arange(4000).astype(str)
    assert labels([correction(first, last, (first, again), ids)]) == ["no more than a redraw"]
    assert labels([correction(first, last, None, ids)]) == ["cannot tell"]


def test_labels_of_a_table_are_one_family() -> None:
    """A loss with a raw p of about 0.02 is harm in no table: four labels a row share the 5 %."""
    rng = np.random.default_rng(9)
    for _ in range(200):
        first, last, again = draws(3, rng, d1=0.57)
        one = correction(first, last, (first, again), IDS)
        if one.gain.effect < 0 and 0.015 < one.gain.p < 0.045:
            break
    assert labels([one]) == ["cannot tell"]
    strong = correction(first, np.zeros_like(first) + (rng.random(first.shape) < 0.3), (first, again), IDS)
    assert labels([one, strong])[1] == "harms"


def test_without_variation_nothing_is_told() -> None:
    nothing, everything = np.zeros((40, 2)), np.ones((40, 2))
    ids = np.arange(40).astype(str)
    for last in (nothing, everything):
        assert labels([correction(nothing, last, (nothing, nothing), ids)]) == ["cannot tell"]


def test_the_runs_of_an_optimizer_keep_their_variance() -> None:
    """Three optimized programs that gain 0, 0.1 and 0.5: certain of these three, not of the next one."""
    rng = np.random.default_rng(10)
    first = (rng.random((200, 3)) < 0.4) * 1.0
    last = np.maximum(first, rng.random((200, 3)) < np.array([0.0, 0.1, 0.5]))
    fixed, optimized = (correction(first, last, None, IDS, name) for name in ("none", "gepa"))
    assert optimized.gain.effect == fixed.gain.effect
    assert optimized.gain.se > 3 * fixed.gain.se and optimized.gain.p > 0.05 > fixed.gain.p


TURNS = {"self_correct": (0.4, 0.5, 0.6), "vote": (0.45,), "resample": (0.4, 0.4, 0.4)}
CALLS = [CallRecord(phase="evaluate", role="answer", list_cost_usd=0.001)] * 3 * 40 + [
    CallRecord(phase="evaluate", role="review", list_cost_usd=0.001)
] * 2 * 40


def write_turns(results: Path, steps: dict[str, int], rows: int = 40, **changes: Any) -> None:
    """One run of each pipeline at its number of calls, `rows` rows in groups of four that answer alike."""
    rng = np.random.default_rng(3)
    for pipeline, count in steps.items():
        chances = TURNS[pipeline][:count] if pipeline != "vote" else TURNS[pipeline]
        right = (rng.random((rows // 4, 1)) < np.array(chances)).astype(float).repeat(4, axis=0)
        settings = {"test_size": rows, "data_sha256": "0"} | changes
        cell = Cell("alpha", pipeline, count, "none", "made/m", "made/m", **settings)
        write_answers(results, cell, right, ModelFacts(None, "unknown", None, 1.0, None), 0.005, 4, CALLS)


def found(results: Path) -> Findings:
    return analyze_results.find([results], None, False)


def test_the_vote_is_compared_at_as_many_calls(tmp_path: Path) -> None:
    write_turns(tmp_path, {"self_correct": 3, "vote": 5})
    assert found(tmp_path).turned[0].beyond_vote is None
    write_turns(tmp_path, {"vote": 3})
    (cell,) = found(tmp_path).turned
    by_pipeline = {entry.series.pipeline: entry for entry in found(tmp_path).entries if entry.steps == 3}
    assert cell.beyond_vote.effect == by_pipeline["self_correct"].final.mean - by_pipeline["vote"].final.mean
    assert cell.beyond_vote.low < cell.beyond_vote.effect < cell.beyond_vote.high
    table = next(one for one in report_of(found(tmp_path)).tables if one.title == "Self-correction")
    shown = dict(zip(table.columns, table.rows[0], strict=True))["beyond the vote at equal calls"]
    assert shown.startswith(f"{100 * cell.beyond_vote.effect:+.1f} [")


def test_on_other_terms_or_of_even_calls_there_is_no_vote_to_compare_with(tmp_path: Path) -> None:
    write_turns(tmp_path / "even", {"self_correct": 2, "vote": 2})
    assert found(tmp_path / "even").turned[0].beyond_vote is None
    write_turns(tmp_path / "terms", {"self_correct": 3})
    write_turns(tmp_path / "terms", {"vote": 3}, temperature=0.2)
    assert found(tmp_path / "terms").turned[0].beyond_vote is None


def test_intervals_of_turns_are_over_groups(tmp_path: Path) -> None:
    """Rows that answer alike in fours are ten answers, and the last turn's interval is the cell's own."""
    write_turns(tmp_path, {"self_correct": 3})
    f = found(tmp_path)
    (cell,) = f.turned
    assert cell.intervals[-1] == (f.summary["final_low"][0], f.summary["final_high"][0])
    for turn, (low, high) in enumerate(cell.intervals):
        scores = cell.turns[::4, turn, 0]
        half = distributions.t.ppf(0.975, 9) * scores.std(ddof=1) / np.sqrt(10)
        assert (low, high) == pytest.approx((max(0, scores.mean() - half), min(1, scores.mean() + half)))


def test_later_turns_cost_their_share_also_where_a_turn_is_several_calls(tmp_path: Path) -> None:
    """Three calls for the answer and one for each of two reviews: two fifths of an answer's cost."""
    write_turns(tmp_path, {"self_correct": 3})
    assert found(tmp_path).gains["extra_usd"].tolist() == pytest.approx([0.002])


def test_tables_for_a_paper_fit_a_column(tmp_path: Path) -> None:
    """In small type a column of 3.2 inches holds about 54 letters; names of models come without folders."""
    rng = np.random.default_rng(5)
    for number, size in enumerate((1.2, 3.2, 8.0, 30.0, 120.0)):
        for task in ("toolqa", "superglue"):
            turns = (rng.random((300, 3)) < np.array([0.4, 0.45, 0.45 + 0.03 * size**0.4])).astype(float)
            name = f"together_ai/maker/Qwen2.5-{number}B-Instruct-Turbo"
            cell = Cell(task, "self_correct", 3, "none", name, name, test_size=300, data_sha256="0")
            write_answers(tmp_path / "results", cell, turns, ModelFacts(size, "published", None, 1.0, None), 0.005)
    narrow = [table for table in report_of(found(tmp_path / "results")).tables if table.narrow]
    titles = ["Gain and cost of self-correction by model", "Exponent of self-correction by task"]
    assert [table.title for table in narrow] == titles
    for table in narrow:
        widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
        assert sum(widths) <= 54
    assert narrow[0].rows[0][0] == "Qwen2.5-0B-Instruct-Turbo"
    assert [row[0] for row in narrow[1].rows] == ["all tasks", "superglue", "toolqa"]
    write_latex(tmp_path / "tables.tex", report_of(found(tmp_path / "results")))
    assert (tmp_path / "tables.tex").read_text().count("\\footnotesize") == 2
