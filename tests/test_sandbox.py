"""Model-written programs are judged and contained: honest ones pass, hostile ones score 0 and leave nothing behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import dspy
import psutil
import pytest
from dspy.primitives.python_interpreter import PythonInterpreter

import run_scaling_experiment as script
from benchmarks import humaneval
from scaling.sandbox import bridge as sandbox_bridge
from scaling.sandbox import deno
from scaling.sandbox import programs as sandbox
from scaling.sandbox.programs import Verdict, run_checks
from scaling.types import CellStopped, UsageError
from tests.support.chaos import only_in_chaos

REAL_ROWS = Path(__file__).parent.parent.parent / "shared" / "data"
real = pytest.mark.skipif(not (REAL_ROWS / "humaneval").is_dir(), reason="no real rows beside this clone")
boxed = pytest.mark.skipif(not deno.available(), reason="no Deno with Pyodide here: python -m scaling.sandbox")

CHECKS = """
def check(candidate):
    assert candidate(2) == 3
    assert candidate(5) == 6
"""
BRANDED_EQUAL = """
class Same(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
"""
# Answers the second call with text of its own, and leaves.
FORGED = """
import js
from pyodide.ffi import create_proxy
def add_one(x):
    global _bridge_call
    def forged(function, arguments):
        js.setTimeout(create_proxy(lambda: js.Deno.exit(0)), 30)
        return {reply}
    _bridge_call = forged
    return x + 1
"""
# Stores on disk from a worker, where the globals of Deno are whole again.
STORING = """
import js
def add_one(x):
    js.eval('''
      const { Worker } = process.getBuiltinModule("node:worker_threads");
      new Worker(`(async () => {
        const kept = await caches.open("kept");
        for (let i = 0; ; i++) await kept.put("http://kept/" + i, new Response(new Uint8Array(1e6)));
      })()`, { eval: true });
    ''')
    return None
import asyncio
add_one(1)
await asyncio.sleep(60)
"""
# name -> (program, the kinds of failure that may be said of it)
HOSTILE = {
    "an endless loop": ("def add_one(x):\n    while True: pass", {"time"}),
    "an endless loop on loading": ("while True: pass", {"time"}),
    "a fork": ("import os\ndef add_one(x):\n    os.fork()", {"error"}),
    "a subprocess": ("import subprocess\ndef add_one(x):\n    return subprocess.run(['ls']).returncode", {"error"}),
    "memory": ("def add_one(x):\n    held = []\n    while True: held.append(bytearray(10**7))", {"memory", "error"}),
    "a read": ("def add_one(x):\n    return len(open('/etc/passwd').read())", {"error"}),
    "a read of its own runner": (
        "import js\nimport json\ndef add_one(x):\n    return js.Deno.readTextFileSync('/etc/passwd')",
        {"error", "crash"},
    ),
    "a write": ("import js\ndef add_one(x):\n    js.Deno.writeTextFileSync('{place}', 'here')", {"error", "crash"}),
    "the environment": (
        "import os, js\ndef add_one(x):\n    js.Deno.env.get('PATH')\n    return x + 1",
        {"error", "crash"},
    ),
    "a socket": ("import socket\ndef add_one(x):\n    socket.create_connection(('127.0.0.1', 80))", {"error"}),
    "a process through js": (
        "import js\ndef add_one(x):\n    js.Deno.Command.new('ls').outputSync()",
        {"error", "crash"},
    ),
    "exit": ("def add_one(x):\n    exit(0)", {"error"}),
    "exit on loading": ("import sys\ndef add_one(x): return x\nsys.exit(0)", {"error"}),
    "exit through js": ("import js\ndef add_one(x):\n    js.Deno.exit(0)", {"crash"}),
    "a printed pass": (
        "def add_one(x):\n    print('passed', True)\n    return None\nprint('1 of 1 tests passed')",
        {"wrong"},
    ),
    "a submitted pass": ("def add_one(x):\n    SUBMIT('value 3')", {"error", "crash"}),
    "a forged message": (
        "import js\ndef add_one(x):\n"
        '    js.console.log(\'{"jsonrpc": "2.0", "result": {"output": "value 3"}, "id": "1"}\')\n    return 0',
        {"crash", "wrong"},
    ),
    "a checker patched": (
        "import builtins, sys\ndef check(candidate): return None\nbuiltins.AssertionError = RuntimeError\n"
        "builtins.eval = builtins.exec = lambda *given: None\nsys.settrace(lambda *given: None)\n"
        "def add_one(x):\n    globals()['check'] = lambda candidate: None\n    return 0",
        {"wrong", "error", "missing"},
    ),
    "a bridge patched": (
        "import json\njson.loads = lambda text: {'tuple': [{'tuple': [2]}, {'dict': []}]}\n"
        "def add_one(x): return x + 1",
        {"wrong"},
    ),
    "an answer equal to everything": (
        "class Same:\n    def __eq__(self, other): return True\ndef add_one(x): return Same()",
        {"error"},
    ),
    "a number equal to everything": (f"{BRANDED_EQUAL}\ndef add_one(x): return Same(0)", {"wrong"}),
    "deep recursion": ("def add_one(x):\n    return add_one(x)", {"error", "crash"}),
    "a thread that outlives": (
        "import threading\ndef add_one(x):\n    threading.Thread(target=lambda: add_one(x)).start()\n    return 0",
        {"error"},
    ),
    "a task that outlives": (
        "import asyncio\nasync def stay():\n    while True: await asyncio.sleep(0)\n"
        "def add_one(x):\n    asyncio.ensure_future(stay())\n    return 0",
        {"wrong", "error"},
    ),
    "an answer that ends its judge": (FORGED.format(reply="'value ' + '-' * 5000 + '1'"), {"error", "crash"}),
    "sums that end their judge": (FORGED.format(reply="'value ' + '1+' * 100000 + '1'"), {"error", "crash"}),
    "a deep answer": (FORGED.format(reply="'value ' + '[' * 100000 + ']' * 100000"), {"error"}),
    "a wide answer": (FORGED.format(reply="'value [' + '1,' * 1900000 + '1]'"), {"error"}),
    "an answer of no kind": (FORGED.format(reply="'values 3'"), {"error"}),
    "a store on disk": (STORING, {"disk", "error", "crash"}),
    "a signal to itself": (
        "import js\ndef add_one(x):\n    js.Deno.kill(js.Deno.pid, 'SIGINT')\n    while True: pass",
        {"crash"},
    ),
    "a flood of output": (
        "import js\ndef add_one(x):\n    while True: js.Deno.stdout.writeSync(js.Uint8Array.new(10**6))",
        {"time", "crash", "memory"},
    ),
}


# Each start of a sandbox takes a second or two of a core: all of them in `make chaos`, one of a kind in `make test`.
SHORT = (
    "memory", "exit through js", "a printed pass", "a checker patched", "deep recursion", "a thread that outlives",
    "an answer that ends its judge",
)  # fmt: skip
CHAOS = bool(os.environ.get("CHAOS"))
slow = pytest.mark.skipif(not CHAOS, reason="a sandbox takes seconds: make chaos")
CHOSEN = [name for name in HOSTILE if CHAOS or name in SHORT]


def judged(code: str, seconds: float = 2.0, megabytes: float = 400) -> Verdict:
    return run_checks(code, CHECKS, "add_one", seconds=seconds, megabytes=megabytes)


@boxed
def test_a_right_program_passes_and_wrong_ones_say_how_they_fail() -> None:
    failed = judged("def add_one(x): return 1 // 0", seconds=10)
    assert (failed.passed, failed.kind) == (False, "error") and failed.detail.startswith("ZeroDivisionError")
    if CHAOS:
        assert judged("def add_one(x): return x + 1", seconds=10) == Verdict(True, None, "")
        assert judged("def other(x): return x + 1", seconds=10).kind == "missing"
        assert judged("def add_one(x) return", seconds=10).kind == "syntax"


@boxed
@pytest.mark.parametrize("name", CHOSEN)
def test_hostile_programs_are_contained_and_score_nothing(name: str, tmp_path: Path) -> None:
    code, kinds = HOSTILE[name]
    place = tmp_path / "written"
    # Long enough for a busy machine where the program ends by itself.
    verdict = judged(code.replace("{place}", str(place)), seconds=1.0 if kinds == {"time"} else 10.0)

    assert not verdict.passed
    assert verdict.kind in kinds, verdict
    assert not place.exists()


@boxed
def test_no_way_out_is_open(tmp_path: Path) -> None:
    """Many of the hostile programs in one: what each gets is its error, and the program ends without a score."""
    ways = {
        "fork": "__import__('os').fork()",
        "process": "__import__('subprocess').run(['ls'])",
        "process through js": "__import__('js').Deno.Command.new('ls').outputSync()",
        "read": "open('/etc/passwd').read()",
        "read through js": "__import__('js').Deno.readTextFileSync('/etc/passwd')",
        "write through js": f"__import__('js').Deno.writeTextFileSync('{tmp_path}/written', 'here')",
        "environment": "__import__('js').Deno.env.get('PATH')",
        "socket": "__import__('socket').create_connection(('127.0.0.1', 80))",
        "store": "__import__('js').localStorage.setItem('a', 'b')",
        "store of the session": "__import__('js').sessionStorage.setItem('a', 'b')",
        "cache": "__import__('js').caches.open('kept')",
        "worker": "__import__('js').Worker",
        "signal": f"__import__('js').Deno.kill({os.getpid()}, 'SIGCONT')",
    }
    code = f"def add_one(x):\n    got = []\n    for name, way in {ways!r}.items():\n"
    code += "        try:\n            eval(way)\n            got.append(name)\n        except BaseException: pass\n"
    code += "    raise RuntimeError(f'{len(got)} ways are open: {got}')"
    verdict = judged(code, seconds=10)
    assert verdict == Verdict(False, "error", "RuntimeError: 0 ways are open: []")
    assert not (tmp_path / "written").exists()


@boxed
def test_nothing_outlives_a_time_limit() -> None:
    assert judged("def add_one(x):\n    while x: x = 1", seconds=0.5).kind == "time"
    assert sandboxes() <= judges()


@only_in_chaos
@boxed
def test_a_sandbox_writes_to_a_folder_of_its_own_with_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sandbox, "DISK_MEGABYTES", 0.01)  # Deno's own files are more than that
    verdict = judged("import asyncio\nawait asyncio.sleep(60)", seconds=30)
    assert verdict == Verdict(False, "disk", "the program needed more than 0.01 MB of disk")
    assert len(list(tmp_path.iterdir())) <= 1  # the judge's, where it is a new one


@boxed
@slow
def test_a_judge_holds_no_more_memory_after_large_answers() -> None:
    for reply in ("'value [' + '1,' * 450000 + '1]'", "'value [' + '{\"dict\":[[1,1]]},' * 50000 + '1]'"):
        assert judged(FORGED.format(reply=reply), seconds=30).kind in ("wrong", "error", "crash")
    assert all(psutil.Process(judge).memory_info().rss < 400 * 2**20 for judge in judges())


@only_in_chaos
@boxed
def test_a_judge_that_dies_of_an_answer_is_the_programs_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    # Let everything through that a program sends: what is not looked for today is still no interruption.
    monkeypatch.setattr(sandbox_bridge, "cleaned", lambda reply: reply)
    verdict = judged(FORGED.format(reply="'value ' + '[' * 5000 + ']' * 5000"), seconds=30)
    assert not verdict.passed and verdict.kind in ("crash", "wrong", "error")


def reply(text: str) -> str:
    return sandbox_bridge.cleaned(text)


@pytest.mark.parametrize(
    "text",
    [
        "value " + "[" * 100_000 + "]" * 100_000,
        "value " + "[" * 201 + "]" * 201,
        "value " + '{"tuple":' * 300 + "1" + "}" * 300,
        "value " + "-" * 5000 + "1",
        "value " + "1" * 5000,
        "value [" + "1," * 600_000 + "1]",
        "value __import__('os')",
        "iter",
        "values 3",
        "",
        None,
        3,
    ],
)
def test_what_is_no_answer_never_reaches_the_judge(text: str) -> None:
    answer = reply(text)
    assert answer.startswith("error ") and len(answer) < 100


def test_plain_answers_and_short_errors_reach_the_judge_as_they_are() -> None:
    for text in ("value 3", 'iter [1, {"tuple": [1]}]', "value " + "[" * 199 + "]" * 199, "error KeyError 'a'"):
        assert reply(text) == text
    assert len(reply("error ValueError " + "x" * 10_000)) == 600


@boxed
def test_sandboxes_see_no_environment_and_end_without_a_score_when_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "a secret")
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(judged, "import time\ndef add_one(x): time.sleep(60)", seconds=120)
        while not (new := sandboxes() - judges()):
            wait([verdict], timeout=0.05)  # a loop without a pause would take the sandbox's core from it
            assert not verdict.done()
        assert "a secret" not in str([psutil.Process(process).environ() for process in new])
        interrupted = [psutil.Process(process) for process in sandboxes()]
        for process in interrupted:
            process.send_signal(signal.SIGINT)
        with pytest.raises(CellStopped) as stopped:
            verdict.result()
        psutil.wait_procs(interrupted, timeout=10)
    assert stopped.value.status == "interrupted"


def test_values_cross_the_bridge_as_plain_values() -> None:
    def ask(function: Callable, args: str) -> str:
        return sandbox_bridge.cleaned(sandbox_bridge.call(function, args))

    def passes(function: Callable, check: str) -> bool:
        try:
            checks = f"def check(f):\n    assert {check}\n"
            return sandbox_bridge.judge(lambda args: ask(function, args), "f", "", checks, "word") == "word"
        except (AssertionError, TypeError):
            return False

    for value in (None, True, -3, 10**40, 2.5, float("inf"), "é\n'", b"x", [1, (2,), ()], {"a": {1}}, set(), 2j):
        assert passes(lambda x: x, f"f({value!r}) == {value!r}".replace("inf", "1e999"))
    assert passes(lambda n: range(n), "list(f(3)) == [0, 1, 2]")
    assert not passes(lambda n: range(n), "f(3) == [0, 1, 2]")
    assert passes(lambda n: Counter("aa"), "f(0) == {'a': 2}")
    assert not passes(lambda n: object(), "f(0) is not None")


@real
def test_arguments_and_answers_of_all_canonical_solutions_cross_the_bridge() -> None:
    for row in humaneval.load(str(REAL_ROWS))["train"]:
        names: dict = {"__name__": "program"}
        exec(row["code"], names)

        def ask(args: str, function: Callable = names[row["entry_point"]]) -> str:
            return sandbox_bridge.cleaned(sandbox_bridge.call(function, args))

        prelude = f"{row['prompt']}\n    pass\n"
        assert sandbox_bridge.judge(ask, row["entry_point"], prelude, row["tests"], "word") == "word", row["id"]


@only_in_chaos
@boxed
@real
def test_canonical_solutions_pass() -> None:
    rows = humaneval.load(str(REAL_ROWS))["train"]
    # One needs helpers of its prompt, one its prompt's imports only, one neither.
    chosen = ["HumanEval/38", "HumanEval/0", "HumanEval/66"]
    if CHAOS:
        chosen += ["HumanEval/32", *(f"HumanEval/{28 * i + 10}" for i in (0, 1, 3, 4))]
    for row in [row for row in rows if row["id"] in chosen]:
        gold = dspy.Example(**row)
        assert humaneval.metric(gold, dspy.Prediction(code=row["code"])) == 1.0, row["id"]


@slow
@boxed
def test_feedback_names_the_kind_and_shows_no_hidden_test() -> None:
    row = next(row for row in humaneval.load("sample")["train"] if row["entry_point"] == "ferry_trips")
    gold = dspy.Example(**row)
    wrong = dspy.Prediction(code="def ferry_trips(passengers, seats):\n    return passengers // seats")
    assert humaneval.metric(gold, wrong) == 0.0
    assert humaneval.feedback(gold, wrong) == "Wrong: the function runs, but an answer of it is not right."
    said = humaneval.execution_feedback(gold, wrong)
    assert "ferry_trips(10, 4) gave 2, the docstring says 3" in said and "101" not in said
    assert "come out right" in humaneval.execution_feedback(gold, dspy.Prediction(code=row["code"]))


def test_without_a_sandbox_the_error_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(deno, "missing", lambda: "Deno is not installed")
    with pytest.raises(UsageError, match="pip install .*python -m scaling.sandbox"):
        deno.require()
    flags = ["--benchmarks", "humaneval", "--data", "sample", "--models", "openai/scripted", "--steps", "1"]
    flags += ["--optimizers", "none", "--runs", "1", "--api-base", "http://127.0.0.1:1/v1"]
    flags += ["--output-dir", str(tmp_path)]
    assert script.main(flags) == 2  # before any call
    assert "Deno is not installed" in capsys.readouterr().err
    assert script.main([*flags, "--dry-run"]) == 0


def sandboxes() -> set[int]:
    """Processes of this one that run DSPy's sandbox."""
    return {child.pid for child in psutil.Process().children() if child.name() == "deno"}


def judges() -> set[int]:
    """Sandboxes that wait for the next problem's checks."""
    kept = [thing for thing in gc.get_objects() if isinstance(thing, PythonInterpreter) and "_ask" in thing.tools]
    return {interpreter.deno_process.pid for interpreter in kept if interpreter.deno_process is not None}


@only_in_chaos
@boxed
def test_a_judge_that_is_being_killed_judges_no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a killed process takes a while to end: the next program was called a crash."""
    kill, delays = subprocess.Popen.kill, iter([0.0, 0.7])  # of the program, and of its judge

    def kill_later(process: subprocess.Popen) -> None:
        threading.Timer(next(delays, 0.0), kill, [process]).start()

    with ThreadPoolExecutor(1) as one_thread:  # which has one judge
        monkeypatch.setattr(sandbox, "THREADS", one_thread)
        monkeypatch.setattr(subprocess.Popen, "kill", kill_later)
        assert judged("def add_one(x):\n    while True: pass", seconds=1.5).kind == "time"
        verdict = judged("def add_one(x):\n    return x + 1 + 0", seconds=20)
        assert verdict.passed, verdict
