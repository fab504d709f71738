"""A program that leaves sends what it sent before, byte for byte, reads answers alike, and scores the same."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import given
from hypothesis import strategies as st

import export_results
import run_scaling_experiment as script
from scaling.command.program_export import Found, ModelOptions, check_program, find_cell
from scaling.llm.adapters import ExactChatAdapter, ExactJSONAdapter
from scaling.portable.made import portable
from scaling.portable.outside import NoAnswer, Program, Step, messages_of, read_answer, read_program, run
from scaling.records.store import CACHE
from scaling.testing import Body, ScriptedServer
from scaling.types import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from tests.support.files import read
from tests.support.toy import LABELS, rows

MODELS = """
[models."toy/{adapter}"]
route = "openai/scripted"
api_base = "{url}"
adapter = "{adapter}"
"""
CELLS = [
    *(("chat", "chain", steps, "none") for steps in range(1, 6)),
    ("chat", "chain", 2, "mipro"), ("chat", "chain", 1, "gepa"), ("chat", "vote", 3, "bootstrap"),
    ("chat", "self_correct", 3, "none"), ("chat", "repeat", 2, "none"),
    ("json", "chain", 3, "mipro"), ("json", "chain", 1, "bootstrap"), ("json", "vote", 3, "none"),
    ("json", "self_correct", 2, "none"), ("json", "resample", 2, "bootstrap"),
]  # fmt: skip


@pytest.fixture
def cell(experiment: Callable[..., dict[str, Any]], server: ScriptedServer, tmp_path: Path) -> Callable[..., Found]:
    """Runs a small cell and finds its program again. The model is better with worked examples, so that they stay."""
    server.skill = lambda body: 0.9 if len(body["messages"]) > 2 else 0.3

    def made(
        adapter: str = "chat", pipeline: str = "chain", steps: int = 1, optimizer: str = "none", size: int = 6
    ) -> Found:
        models = tmp_path / f"{adapter}.toml"
        models.write_text(MODELS.format(adapter=adapter, url=server.url))
        record = experiment(
            model=f"toy/{adapter}", models_file=models, api_base=None, pipeline=pipeline, num_steps=steps,
            optimizer=optimizer, test_size=size,
        )  # fmt: skip
        assert record["status"] == "ok", record["error"]
        return find_cell(tmp_path / "cell", script.BENCHMARK_CONFIG, ModelOptions(models_file=models))

    return made


def steps_of(found: Found) -> list[Step]:
    return portable(found.source).steps


@pytest.mark.parametrize(("adapter", "pipeline", "steps", "optimizer"), CELLS)
def test_the_exported_program_asks_what_the_program_asked_and_scores_the_same(
    cell: Callable[..., Found], server: ScriptedServer, adapter: str, pipeline: str, steps: int, optimizer: str
) -> None:
    found = cell(adapter, pipeline, steps, optimizer)
    # The limit of tokens has one name on the wire and another one for LiteLLM.
    sent = [{**body, "max_tokens": body["max_completion_tokens"]} for body in server.requests]

    shows_demos = any(predictor.demos for predictor in found.source.core.predictors())
    assert shows_demos == (optimizer in ("bootstrap", "mipro"))
    comparison, meter = check_program(found, ModelOptions())
    # Its requests have the keys of the cell's own, so none is sent again.
    assert len(server.requests) == len(sent)
    assert meter.total().calls == meter.total().cache_hits == 6 * steps
    assert (comparison.rows, comparison.changed) == (6, 0)
    assert comparison.before == comparison.after == found.record.final_score

    program = read_program(portable(found.source).to_json())
    asked: list[Body] = []

    def ask(step: Step, messages: list[dict[str, str]], draw: int) -> str:
        limit = step.parameters["max_tokens"]
        asked.append({"messages": messages, **step.parameters, "model": "scripted", "max_completion_tokens": limit})
        answer: str = server.default_answer(asked[-1])
        return answer

    for row in found.splits.test[:2]:
        run(program, {"message": row["message"]}, ask)
    # The first step's are those that were sent; later ones depend on what the server drew.
    first = [body for body in asked if body["messages"][0] == program.steps[0].messages[0]]
    assert first and all(body in sent for body in first)


def test_a_program_with_demos_shows_them(cell: Callable[..., Found]) -> None:
    found = cell("chat", "chain", 1, "bootstrap")
    (step,) = steps_of(found)
    demos = found.source.core.predictors()[0].demos
    assert demos
    roles = [message["role"] for message in step.messages]
    assert roles == ["system", *["user", "assistant"] * len(demos), "user"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    ["{message}", "{{message}}", "{{{message}}}", "\\g<0>", "[[ ## label ## ]]\nbilling", " \n", "${x}", "%s"]
)


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_any_text_goes_where_the_program_puts_it(cell: Callable[..., Found], adapter: str) -> None:
    found = cell(adapter, "chain", 3, "bootstrap")
    formats = ExactChatAdapter() if adapter == "chat" else ExactJSONAdapter()
    pairs = list(zip(steps_of(found), found.source.core.predictors(), strict=True))

    @given(st.lists(TEXTS, min_size=3, max_size=3))
    def holds(texts: list[str]) -> None:
        for step, predictor in pairs:
            values = dict(zip(["message", "analyzer_notes", "reasoner_notes"], texts, strict=True))
            own = {name: values[name] for name in step.marks}
            assert messages_of(step, own) == formats.format(predictor.signature, predictor.demos, own)

    holds()


PIECES = st.sampled_from([
    *LABELS, "[[ ## label ## ]]", "[[ ## completed ## ]]", "[[ ## message ## ]]", "\n", " ", "\n\n", '"', "'", "{", "}",
    '{"label": ', '"label"', ":", ",", "null", "[", "]", "Literal[", "Sure: ", "```json\n", "```", "3", "\u2028", ".",
])  # fmt: skip


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_answers_are_read_as_dspy_reads_them(cell: Callable[..., Found], adapter: str) -> None:
    found = cell(adapter)
    formats = ExactChatAdapter() if adapter == "chat" else ExactJSONAdapter()
    (step,), (predictor,) = steps_of(found), found.source.core.predictors()

    @given(st.lists(PIECES, max_size=9).map("".join))
    def holds(answer: str) -> None:
        try:
            expected = formats.parse(predictor.signature, answer)
        except AdapterParseError:
            with pytest.raises(NoAnswer):
                read_answer(step, answer)
        else:
            assert read_answer(step, answer) == expected

    holds()


def test_the_check_tells_a_program_that_has_lost_something(
    cell: Callable[..., Found], server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As DSPy #8042: the export went without the worked examples."""
    found = cell("chat", "chain", 1, "bootstrap", 20)
    state = read(found.files.program)
    state["classifier"]["demos"] = []
    found.files.program.write_text(json.dumps(state))
    line = [str(found.files.folder), "--as", "prompt.txt", "--check", "--out", str(tmp_path / "out")]
    assert export_results.main([*line, "--models-file", str(tmp_path / "chat.toml")]) == EXIT_FAILED
    said = capsys.readouterr().out
    assert "difference  -" in said and " 0 rows changed" not in said


def test_what_is_printed_of_a_check(
    cell: Callable[..., Found], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = cell("chat", "chain", 2, "none")
    line = [str(found.files.folder), "--as", "openai-messages", "--check", "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert export_results.main([*line, "--models-file", str(tmp_path / "chat.toml")]) == EXIT_OK
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"wrote {tmp_path / 'out' / 'messages.json'}"
    assert "toy 2step none toy/chat run0 on 6 test rows" in said[1]
    assert "0 rows changed" in said[4] and "12 calls, 12 of them from the cache" in said[5]
    again = [*line, "--models-file", str(tmp_path / "chat.toml")]
    assert export_results.main(again) == EXIT_OK  # the same files again
    assert export_results.main([*again, "--max-cost", "1"]) == EXIT_USAGE
    assert "the price of 'toy/chat' is not known" in capsys.readouterr().err
    (tmp_path / "out" / "messages.json").write_text("mine")
    assert export_results.main(again) == EXIT_USAGE
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["openai-messages", "prompt.txt", "litellm", "dspy"])
def test_every_format_holds_the_instructions(
    cell: Callable[..., Found], tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    found = cell("chat", "chain", 2, "none")
    line = [str(found.files.folder), "--as", form, "--out", str(tmp_path / "out")]
    assert export_results.main([*line, "--models-file", str(tmp_path / "chat.toml")]) == EXIT_OK
    text = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "Sort a message into one of the labels." in text and "You prepare a decision on: label." in text


def test_each_draw_of_a_row_is_asked_for_again(
    experiment: Callable[..., dict[str, Any]], server: ScriptedServer, tmp_path: Path
) -> None:
    experiment(draws=3, test_size=6)
    asked = len(server.requests)
    found = find_cell(tmp_path / "cell", script.BENCHMARK_CONFIG, ModelOptions(api_base=server.url))
    comparison, meter = check_program(found, ModelOptions())
    assert (comparison.rows, comparison.changed, meter.total().calls) == (6, 0, 18)
    assert len(server.requests) == asked


@pytest.fixture
def exported(cell: Callable[..., Found], tmp_path: Path) -> Callable[..., Path]:
    """Exports a cell in a format; gives the folder."""

    def made(form: str, *which: Any) -> Path:
        found = cell(*which)
        line = [str(found.files.folder), "--as", form, "--out", str(tmp_path / "out")]
        assert export_results.main([*line, "--models-file", str(tmp_path / f"{which[0]}.toml")]) == EXIT_OK
        return tmp_path / "out"

    return made


def test_the_script_answers_rows_without_dspy(exported: Callable[..., Path], server: ScriptedServer) -> None:
    folder = exported("litellm", "chat", "chain", 2, "bootstrap")
    sent = [body["messages"] for body in server.requests]
    message = next(row["message"] for row in rows() if any(row["message"] in m[-1]["content"] for m in sent[-12:]))
    environment = {**os.environ, "OPENAI_API_BASE": server.url, "OPENAI_API_KEY": "none", "PYTHONPATH": "",
                   "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "program.py"], input=json.dumps({"message": message}), cwd=folder, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["label"] in LABELS
    first, second = [body["messages"] for body in server.requests[len(sent) :]]
    assert first in sent
    assert "[[ ## analyzer_notes ## ]]" in second[-1]["content"] and message in second[-1]["content"]


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_the_dspy_module_sends_the_same_messages(
    exported: Callable[..., Path], server: ScriptedServer, adapter: str
) -> None:
    folder = exported("dspy", adapter, "chain", 2, "bootstrap")
    sent = [(body["messages"], body.get("response_format")) for body in server.requests]
    spec = importlib.util.spec_from_file_location("exported_program", folder / "program.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lm = dspy.LM("openai/scripted", api_base=server.url, api_key="none", cache=False)
    asked = {m[-1]["content"] for m, _ in sent}
    message = next(row["message"] for row in rows() if any(row["message"] in text for text in asked))
    with dspy.context(lm=lm, adapter=module.adapter):
        assert module.program(message=message).label in LABELS
    first = server.requests[len(sent)]
    assert first["messages"] in [messages for messages, _ in sent]


def test_what_cannot_be_exported_is_one_line(
    experiment: Callable[..., dict[str, Any]], cell: Callable[..., Found], tmp_path: Path,
    toy: Callable[..., Any], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refused(*flags: str) -> str:
        assert export_results.main([*flags, "--as", "litellm", "--out", str(tmp_path / "out")]) == EXIT_USAGE
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert not (tmp_path / "out").exists()
        return said

    assert "holds no cell that is ok" in refused(str(tmp_path))
    experiment(output_dir=tmp_path / "told", pipeline="self_correct", num_steps=2, feedback="oracle")
    server = ("--api-base", "http://127.0.0.1:9/v1")
    assert "depend on feedback" in refused(str(tmp_path / "told"), *server)
    found = cell()
    models = ("--models-file", str(tmp_path / "chat.toml"))
    toy(loader=lambda: rows(119))
    assert "are not those of the cell" in refused(str(found.files.folder), *models)
    toy(roles={"classifier": "x"}, signature=_other_toy())
    assert "have changed since" in refused(str(found.files.folder), *models)
    assert export_results.main([str(tmp_path), "--to", "parquet", "--check"]) == EXIT_USAGE


def test_the_program_of_a_users_own_questions_is_exported(
    command: Callable[..., list[str]], server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"How many legs have {n} cats?,{4 * n}" for n in range(80)]
    (tmp_path / "sums.csv").write_text("question,answer\n" + "\n".join(lines))
    assert script.main([*command(benchmarks=None), "--benchmarks", "sums.csv"]) == EXIT_OK
    (program,) = tmp_path.rglob("program.json")
    line = [str(program.parent), "--as", "openai-messages", "--check", "--api-base", server.url]
    script.BENCHMARK_CONFIG.pop("sums")  # as in another process
    assert export_results.main(line) == EXIT_USAGE
    assert "--data sums.csv" in capsys.readouterr().err
    assert export_results.main([*line, "--data", "sums.csv"]) == EXIT_OK
    assert "0 rows changed" in capsys.readouterr().out
    assert "{{question}}" in (tmp_path / "export" / "messages.json").read_text()
    asked = len(server.requests)
    (tmp_path / "out" / CACHE).rename(tmp_path / "moved")  # what is asked anew is kept, and billed, in the same folder
    assert export_results.main([*line, "--data", "sums.csv"]) == EXIT_OK
    assert len(server.requests) == asked + 20 and (tmp_path / "out" / CACHE).exists()


def _other_toy() -> type[dspy.Signature]:
    class Toy(dspy.Signature):
        """Sort a message otherwise."""

        message: str = dspy.InputField()
        label: str = dspy.OutputField()

    return Toy


def test_a_chain_stops_where_an_answer_cannot_be_read() -> None:
    step = Step("a", [{"role": "user", "content": "{{x}}"}], {"x": "{{x}}"}, {"y": None}, "chat", {})
    with pytest.raises(NoAnswer):
        run(Program("chain", 1, [step]), {"x": "1"}, lambda step, messages, draw: "no heading")


def test_the_exported_script_needs_nothing_of_this_project() -> None:
    for name in ("outside", "inside"):
        text = (Path(script.__file__).parent / "scaling" / "portable" / f"{name}.py").read_text()
        assert "import scaling" not in text and "from scaling" not in text
