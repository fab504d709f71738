"""ToolQA: questions that only tables (and some arithmetic) answer, asked with two tools.

Data: night-chen/ToolQA (Zhuang et al. 2023, arXiv 2306.13304), Apache-2.0; 1,530 questions, easy and hard, from
eight domains; on GitHub, not on the hub. `python -m benchmarks.prepare toolqa --from FOLDER --out DIR` makes
DIR/toolqa/test.jsonl (qid, question, answer, domain, difficulty). One pool is split, so that sizes are maxima.
Tables: upstream's external corpora, which its README links to, as CSV files in DIR/toolqa/corpora/ and together in
tables.duckdb (release.py, tables.py). A file's name is the table's name, its first row the columns; the graph of papers
is four tables (graph.py). Without tables: `--closed-book`, and every output says so.
Sample: five tables of an invented archipelago (sample_corpora/) and 93 questions of 16 templates, written for this
project, so that no model can know the answers.
Tools: a calculator, and one read-only look-up in a table (tools.py); with tables.duckdb also a search by words and SQL
(prepared_tools.py). Group: the question's template.
Metric: exact match after normalising; numbers are compared as numbers ("$ 3,848.0" is 3848).
"""

from __future__ import annotations

import math
import re

import dspy

from benchmarks.toolqa.data import load
from benchmarks.toolqa.tools import make_tools


class ToolQA(dspy.Signature):
    """Answer the question. Answer with a name, a number, a date or a time: a few words, no sentence."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a few words")


def as_number(text: str) -> float | None:
    """The number that a text is, without currency, percent sign and thousands' commas; None for other texts."""
    bare = re.sub(r"[$€£%]|\busd\b", "", text.casefold()).strip().rstrip(".")
    bare = re.sub(r"(?<=\d),(?=\d{3}\b)", "", bare)
    return float(bare) if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", bare) else None


def normalise(text: str) -> str:
    """Lower case without articles, punctuation and repeated spaces; colons, slashes and dashes in figures stay."""
    text = re.sub(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)", " ", text.casefold())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 for the right answer, else 0.0."""
    if (answer := getattr(pred, "answer", None)) is None:
        return 0.0
    given, right = as_number(str(answer)), as_number(gold.answer)
    if given is not None and right is not None:
        return float(math.isclose(given, right, rel_tol=1e-9, abs_tol=1e-9))
    return float(normalise(str(answer)) == normalise(gold.answer))


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right, and what was looked up on the way."""
    if metric(gold, pred):
        return f"Right: '{gold.answer}'."
    calls = getattr(pred, "tool_calls", None) or []
    asked = "; ".join(f"{call['name']}({call['arguments']}) gave '{call['result'][:80]}'" for call in calls)
    way = f" Looked up: {asked}." if asked else " No tool was used." if getattr(pred, "tool_calls", None) == [] else ""
    return f"Wrong: the answer was '{getattr(pred, 'answer', None)}', the right answer is '{gold.answer}'.{way}"


CONFIG = {
    "signature": ToolQA,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "tools": make_tools,
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(500),
    "stratify": "difficulty",
    "match_fields": ("question",),
    "task_class": "tools",
    "licence": "Apache-2.0",
    "roles": {
        "parser": "Name what is asked for, and each name, date and number that a look-up must use.",
        "contextualizer": "Say which table and which of its columns hold what is asked for.",
        "analyzer": "Look up the rows that the question is about and write down their figures.",
        "reasoner": "Work the answer out of the rows that were found, with the calculator where figures are combined.",
        "synthesizer": "State the answer that the notes lead to and whether a look-up confirms it.",
    },
}
