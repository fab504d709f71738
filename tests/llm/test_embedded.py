"""A few true runs on the embedded model, by themselves: beside other tests its threads fight for the cores."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest

import run_scaling_experiment as script
from tests.support.files import lines, read

pytestmark = pytest.mark.model
ROOT = Path(__file__).parents[2]
REAL_ROWS = ROOT.parent / "shared" / "data"
TINY = {"model": "local/smollm2-135m", "train_size": 6, "val_size": 6, "test_size": 4, "rollout_budget": 20}


def run(**changes) -> dict:
    return asyncio.run(script.run_single_experiment(**(TINY | changes)))


def test_a_true_optimizer_run(tmp_path: Path) -> None:
    entry = tomllib.loads((ROOT / "scaling" / "models.toml").read_text())["models"][TINY["model"]]
    entry["optimizer_max_output_tokens"] = 40  # a proposer's text takes seconds
    brief = [f'[models."{TINY["model"]}"]', *(f"{name} = {json.dumps(value)}" for name, value in entry.items())]
    (tmp_path / "models.toml").write_text("\n".join(brief))
    cell = {"benchmark": "banking77", "num_steps": 1, "optimizer": "mipro", "data": "sample", "labels": 4}
    record = run(**cell, output_dir=tmp_path, models_file=tmp_path / "models.toml")
    assert record["status"] == "ok", record["error"]
    assert record["rollouts_used"] <= 20
    assert record["usage"]["optimize"]["completion_tokens"] > 0
    points = read(tmp_path / "learning_curve.json")["points"]
    assert len(points) > 2
    predictions = lines(tmp_path / "predictions.jsonl")
    labels = {"age_limit", "card_arrival", "cash_withdrawal_charge", "change_pin"}
    assert {line["prediction"] for line in predictions} <= labels
    assert record["error_rates"]["parse"] == 0  # answers are held to the schema
    planned = read(tmp_path / "plan.json")[record["cell_id"]]
    used = record["usage"].values()
    for what, actual in (
        ("calls", sum(part["calls"] for part in used)),
        ("tokens", sum(part["prompt_tokens"] + part["completion_tokens"] for part in used)),
    ):
        low, high = planned[what]
        assert 0.8 * low <= actual <= 1.2 * high, (what, low, actual, high)


@pytest.mark.skipif(not REAL_ROWS.is_dir(), reason="no real rows beside this clone")
@pytest.mark.parametrize("benchmark", ["heartdisease", "hotpotqa"])
def test_a_cell_on_real_rows(benchmark: str, tmp_path: Path) -> None:
    sizes = {"train_size": 2, "val_size": 5, "test_size": 2}
    record = run(benchmark=benchmark, num_steps=1, optimizer="none", output_dir=tmp_path, data=str(REAL_ROWS), **sizes)
    assert record["status"] == "ok", record["error"]
    golds = {line["gold"] for line in lines(tmp_path / "predictions.jsonl")}
    source = "".join(path.read_text() for path in (REAL_ROWS / benchmark).glob("*.json*"))
    assert benchmark == "heartdisease" or all(gold in source for gold in golds)


def test_the_documented_own_benchmark_runs_as_shown(tmp_path: Path) -> None:
    """Also the true run of GEPA."""
    text = (ROOT / "docs" / "extending.md").read_text()
    example = re.search(r"<!-- example: own benchmark -->\n```python\n(.*?)```", text, re.S).group(1)
    found = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1].startswith("ok ") and found.stdout.strip().endswith("check")


def test_one_server_a_host_is_taken_over_at_its_address_when_its_process_dies(tmp_path: Path) -> None:
    ask = (
        "from scaling.llm.local_server import shared\nfrom scaling.llm.weights import embedded_file\n"
        "for _ in range(2): print(shared(embedded_file()), flush=True), input()"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with ExitStack() as stack:
        first, second = (stack.enter_context(subprocess.Popen([sys.executable, "-c", ask], **pipes)) for _ in range(2))
        stack.callback(second.kill)
        stack.callback(first.kill)
        address = first.stdout.readline()
        assert address.startswith("http://127.0.0.1:") and second.stdout.readline() == address
        holder, other = (first, second) if serves(first, address) else (second, first)
        holder.kill()
        holder.wait()
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == address and serves(other, address)


def serves(process: subprocess.Popen, address: str) -> bool:
    """Whether it is this process that listens at the address."""
    import psutil

    port = int(address.removesuffix("/v1\n").rsplit(":", 1)[1])
    return port in {at.laddr.port for at in psutil.Process(process.pid).net_connections() if at.status == "LISTEN"}


LEFT_WHILE_IT_ANSWERS = """
import json, threading, time, urllib.request
from scaling.llm.local_server import serve
from scaling.llm.weights import embedded_file

def ask(url):
    body = json.dumps({"messages": [{"role": "user", "content": "Tell a long story."}], "max_tokens": 200}).encode()
    request = urllib.request.Request(url + "/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        print("answered", json.load(reply)["usage"]["completion_tokens"] > 0)

with serve(embedded_file()) as url:
    asking = threading.Thread(target=ask, args=(url,))
    asking.start()
    slots = url.removesuffix("v1") + "slots"
    while not any(slot["is_processing"] for slot in json.load(urllib.request.urlopen(slots))):
        time.sleep(0.01)
asking.join()
"""


def test_a_server_that_is_left_while_it_answers_does_not_hang() -> None:
    """As after a second Ctrl-C: its destructor would wait, with the interpreter's lock, for whoever asked."""
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_WHILE_IT_ANSWERS], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert "answered True" in ended.stdout


def test_two_model_files_take_turns_in_one_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded model's file under a name of its own, beside the embedded model; the plan's time is measured."""
    from scaling.llm.weights import bundled_weights

    (tmp_path / "small.gguf").symlink_to(bundled_weights())
    arguments = {
        "--benchmarks": ["banking77"], "--data": ["sample"], "--labels": ["4"], "--steps": ["1"], "--runs": ["1"],
        "--optimizers": ["none"], "--models": ["local/smollm2-135m", f"gguf:{tmp_path / 'small.gguf'}"],
        "--train-size": ["4"], "--val-size": ["5"], "--test-size": ["4"], "--output-dir": [str(tmp_path / "out")],
    }  # fmt: skip
    command = [word for flag, values in arguments.items() for word in (flag, *values)]
    assert script.main(command) == 0
    printed = capsys.readouterr().out
    models = {read(path)["cell"]["model"] for path in (tmp_path / "out").rglob("results.json")}
    assert len(models) == 2 and any(name.startswith("gguf/small@") for name in models)
    assert printed.count("tokens a second here: about") == 2
    written = "".join(path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*.json*"))
    assert str(tmp_path) not in written
