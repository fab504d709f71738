r"""How the files beside this script were made: the other programs were run, each on the same rows with two models.

    python make_logs.py inspect OUT [ROWS.jsonl]     in an environment with inspect_ai and openai
    python make_logs.py lm-eval OUT [ROWS.jsonl]     in one with lm_eval[api]
    python make_logs.py promptfoo OUT [ROWS.jsonl]   with promptfoo on the path (npm install promptfoo)

    every_eval_ever convert inspect --log_path weak.eval --output_dir OUT --source_organization_name example \
        --evaluator_relationship first_party         in Python 3.12 with every_eval_ever

They were inspect_ai 0.3.285, lm_eval 0.4, promptfoo 0.121.20 and every_eval_ever 0.3.0. logs.tar.xz holds the files.
The models are a server on loopback (scaling.testing) that is right on a row by a hash of the model and the question.
Without ROWS, the rows are sums that were written for this project. The names of folders were taken out of the files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from scaling.testing.server import ScriptedServer, fraction

SKILL = {"weak": 0.5, "strong": 0.8}
SUMS = [{"id": f"sum-{a}-{b}", "question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(2, 10)
        for b in range(3, 6)]  # fmt: skip
TASK = """task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], max_gen_toks: 64}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def rows_of(path: str | None) -> list[dict[str, Any]]:
    """The rows, with an id and a bare answer; of GSM8K's format the number behind ####."""
    if path is None:
        return SUMS
    read = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [
        {"id": f"row-{number}", "question": row["question"], "answer": row["answer"].rpartition("####")[2].strip()}
        for number, row in enumerate(read)
    ]


def answer_of(model: str, question: str, truth: dict[str, str]) -> str:
    """The right answer, or one more than it."""
    right = next((answer for asked, answer in truth.items() if asked in question), "0")
    if fraction({"model": model, "question": question}) < SKILL[model]:
        return right
    return str(float(re.sub(r"[^\d.-]", "", right) or 0) + 1)


def run_inspect(out: Path, rows: list[dict[str, Any]], url: str) -> None:
    """A log for each model in both formats."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import exact
    from inspect_ai.solver import generate

    samples = [Sample(input=row["question"], target=row["answer"], id=row["id"]) for row in rows]
    task = Task(dataset=MemoryDataset(samples, name="sums"), solver=generate(), scorer=exact(), name="sums", version=1)
    for form in ("eval", "json"):
        for name in SKILL:
            model = get_model(f"openai/{name}", base_url=url, api_key="none", responses_api=False)
            eval(task, model=model, log_dir=str(out), log_format=form, display="none")


def run_lm_eval(out: Path, rows: list[dict[str, Any]], url: str) -> None:
    """results_*.json and samples_*.jsonl of each model."""
    out.mkdir(parents=True, exist_ok=True)
    data = out / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (out / "sums.yaml").write_text(TASK.format(rows=data), encoding="utf-8")
    for name in SKILL:
        arguments = f"model={name},base_url={url}/chat/completions,num_concurrent=1,tokenizer_backend=None"
        command = ["lm_eval", "--model", "local-chat-completions", "--model_args", arguments, "--tasks", "sums",
                   "--include_path", str(out), "--apply_chat_template", "--log_samples", "--output_path",
                   str(out / name)]  # fmt: skip
        subprocess.run(command, check=True, env=os.environ | {"OPENAI_API_KEY": "none"})


def run_promptfoo(out: Path, rows: list[dict[str, Any]], url: str) -> None:
    """One JSON file with both models."""
    out.mkdir(parents=True, exist_ok=True)
    tests = [
        {"vars": {"question": row["question"]}, "assert": [{"type": "equals", "value": row["answer"]}]} for row in rows
    ]
    providers = [
        {"id": f"openai:chat:{name}", "label": name, "config": {"apiBaseUrl": url, "apiKey": "none", "cost": 1e-6}}
        for name in SKILL
    ]
    config = {"prompts": ["{{question}}"], "providers": providers, "tests": tests}
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    command = ["promptfoo", "eval", "-c", str(out / "config.json"), "--output", str(out / "promptfoo.json"),
               "--no-cache", "--no-progress-bar", "--no-table"]  # fmt: skip
    subprocess.run(command, check=False)  # its exit code says that some tests failed


def main() -> None:
    program, out = sys.argv[1], Path(sys.argv[2]).resolve()
    rows = rows_of(sys.argv[3] if len(sys.argv) > 3 else None)
    truth = {row["question"]: row["answer"] for row in rows}

    def answer(body: dict[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        return answer_of(body["model"], content if isinstance(content, str) else content[0]["text"], truth)

    with ScriptedServer(answer=answer) as server:
        {"inspect": run_inspect, "lm-eval": run_lm_eval, "promptfoo": run_promptfoo}[program](out, rows, server.url)


if __name__ == "__main__":
    main()
