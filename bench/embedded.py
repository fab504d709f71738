"""The embedded model and the demo, alone and beside one busy process, measured in one run.

`make bench` runs it (about ten minutes on two cores) and rewrites bench/embedded.md. `library` in the table is
xllamacpp with its own choice of threads, which spin at barriers: what this project used before.
"""

from __future__ import annotations

import json
import operator
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.results import Measure, write_results
from scaling.llm import local_server
from scaling.llm.weights import bundled_weights, read_model_file

ROOT = Path(__file__).parent.parent
CALLS = 20
CONTEXT_TOKENS = 8192
PATIENCE_SECONDS = 120.0
SLOWER_BESIDE_LOAD = 1.6  # at most so many times the time of an idle machine
DEMO_SECONDS, FIRST_RESULT_SECONDS = 300.0, 60.0
LEFT = re.compile(r"^\[[\d:]+\].*, (?:about ([\d:]+)|less than a minute) left")
Body = dict[str, Any]
LABELS = ["age_limit", "card_arrival", "cash_withdrawal_charge", "change_pin"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        measures = [*short_calls(), *demo(Path(folder))]
    write_results(Path(__file__).with_suffix(".md"), "The embedded model and the demo", measures)


def short_calls() -> list[Measure]:
    """20 short calls, with the library's own threads and with ours, alone and beside a busy process."""
    sides = [(threads, load) for load in ("alone", "busy") for threads in ("library", "ours")]
    return short_call_measures({side: seconds_of_calls(*side) for side in sides})


def short_call_measures(seconds: dict[tuple[str, str], float]) -> list[Measure]:
    measures = []
    for (threads, load), value in seconds.items():
        gave_up = f"not ended after {PATIENCE_SECONDS:.0f} s" if value >= PATIENCE_SECONDS else ""
        measures.append(Measure(f"{CALLS} short calls, {threads}, {load}", value, "s", None, operator.lt, gave_up))
    for threads, goal in (("library", None), ("ours", SLOWER_BESIDE_LOAD)):
        ratio = seconds[threads, "busy"] / seconds[threads, "alone"]
        measures.append(Measure(f"short calls, {threads}: busy / alone", ratio, "", goal, operator.lt, ""))
    return measures


def demo(folder: Path) -> list[Measure]:
    """What `make demo` takes after its installation, alone and beside a busy process."""
    return demo_measures({load: demo_lines(load, folder / load) for load in ("alone", "busy")})


def demo_measures(lines: dict[str, list[tuple[float, str]]]) -> list[Measure]:
    """lines: by load, (seconds since the start, line) of all that the demo printed."""
    total = {load: shown[-1][0] for load, shown in lines.items()}
    first = next(at for at, line in lines["alone"] if line.startswith("ok "))
    factors = factors_of_time_left(lines["alone"])
    kept = sum(factor <= 2.0 for factor in factors)
    return [
        Measure("demo alone", total["alone"], "s", DEMO_SECONDS, operator.lt, "sweep and analysis"),
        Measure("demo alone: first result", first, "s", FIRST_RESULT_SECONDS, operator.lt, ""),
        Measure("demo: busy / alone", total["busy"] / total["alone"], "", SLOWER_BESIDE_LOAD, operator.lt,
                f"{total['busy']:.0f} s beside a busy process"),
        Measure("demo: time left, worst factor", max(factors, default=1.0), "", 2.0, operator.lt,
                f"from a third of the time on; {kept} of {len(factors)} lines within 2"),
    ]  # fmt: skip


def factors_of_time_left(lines: list[tuple[float, str]]) -> list[float]:
    """How far off each line that gave a time left was: 1 is exact, 2 is double or half; a minute is as it says."""
    end = max(at for at, line in lines if line.startswith("ok "))
    factors = []
    for at, line in lines:
        if (shown := LEFT.match(line)) and end / 3 <= at <= 0.9 * end:
            left = end - at
            ratio = in_seconds(shown[1]) / left if shown[1] else 60.0 / max(60.0, left)
            factors.append(max(ratio, 1 / ratio))
    return factors


def in_seconds(clock: str) -> float:
    """Seconds of a time like 1:02:03 or 2:03."""
    total = 0.0
    for part in clock.split(":"):
        total = 60 * total + float(part)
    return total


def demo_lines(load: str, results: Path) -> list[tuple[float, str]]:
    """The demo's two commands: (seconds since the start, line) of all that they print."""
    commands = (
        ["run_scaling_experiment.py", "--quick", "--output-dir", str(results)],
        ["analyze_results.py", "--results-dir", str(results), "--output-dir", str(results / "analysis")],
    )
    lines = []
    started = time.monotonic()
    with busy(load == "busy"):
        for command in commands:
            with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
                lines += [(time.monotonic() - started, line) for line in process.stdout or ()]
            if process.returncode:
                raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return [*lines, (time.monotonic() - started, "end")]


def seconds_of_calls(threads: str, load: str) -> float:
    """Seconds of the short calls in a process of its own; `PATIENCE_SECONDS` where they did not end."""
    command = [sys.executable, "-m", "bench.embedded", threads]
    with busy(load == "busy"):
        try:
            run = subprocess.run(
                command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=PATIENCE_SECONDS
            )
        except subprocess.TimeoutExpired:
            return PATIENCE_SECONDS
    return float(run.stdout)


@contextmanager
def busy(there: bool) -> Iterator[None]:
    """One process that computes without a pause while the block runs."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if there else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


@contextmanager
def serve_as_the_library_does() -> Iterator[str]:
    """The same server with the library's own choice of threads, which spin while they wait."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(bundled_weights())
    params.n_ctx, params.n_parallel, params.port, params.verbosity = CONTEXT_TOKENS, 1, 0, 0
    server = xllamacpp.Server(params)
    yield server.listening_address + "/v1"
    del server


def ask(address: str, number: int) -> None:
    """One classification whose answer is held to a schema, as the programs here make them."""
    fields = "Your input is a customer's question to a bank. Your output is one of these labels: " + ", ".join(LABELS)
    form = {"type": "object", "properties": {"label": {"enum": LABELS}}, "required": ["label"]}
    body = {
        "messages": [
            {"role": "system", "content": " ".join(4 * [fields])},
            {"role": "user", "content": f"Question {number}: where is the card that I asked for in week {number}?"},
        ],
        "max_tokens": 40,
        "temperature": 0.0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": form}},
    }
    post(address, body)


def post(address: str, body: Body) -> Body:
    """The server's answer to a chat request."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
        answer: Body = json.load(response)
    return answer


def print_seconds_of_calls(threads: str) -> None:
    """Of the calls alone: the server has started and has read the part that all prompts share."""
    server = (
        local_server.serve(read_model_file(bundled_weights())) if threads == "ours" else serve_as_the_library_does()
    )
    with server as address:
        ask(address, CALLS)
        started = time.monotonic()
        for number in range(CALLS):
            ask(address, number)
        print(time.monotonic() - started, flush=True)
        os._exit(0)  # under load the library's threads may take long to stop


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_seconds_of_calls(sys.argv[1])
    else:
        main()
