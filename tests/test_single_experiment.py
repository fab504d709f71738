"""`run_single_experiment` as a library: beside others of its kind, in a process that belongs to somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import optuna
import pytest
import tqdm
from dspy.evaluate import evaluate
from dspy.propose import utils as proposing

import run_scaling_experiment as script
from scaling.testing import ScriptedServer
from scaling.types import UsageError
from tests.conftest import SMALL
from tests.support.files import lines, read

LIBRARY_LOGGERS = ("", "dspy", "optuna", "gepa", "LiteLLM", "httpx", "distributed")


def process_state() -> dict[str, Any]:
    """What belongs to the process, by identity."""
    loggers = [logging.getLogger(name) for name in LIBRARY_LOGGERS]
    return {
        "streams": (id(sys.stdout), id(sys.stderr)),
        "loggers": [([id(handler) for handler in logger.handlers], logger.propagate) for logger in loggers],
        "bars": (id(tqdm.tqdm._instances), tqdm.tqdm),
        "DSPy": (evaluate.ParallelExecutor, evaluate.Evaluate, proposing.inspect, dspy.MIPROv2, dspy.GEPA),
        "inspect": inspect.getsource,
        "signals": threading.excepthook,
    }


def coroutine(server: ScriptedServer, folder: Path, **changes: Any) -> Any:
    """One small experiment against the scripted server."""
    return script.run_single_experiment(**SMALL | {"output_dir": folder, "api_base": server.url} | changes)


async def together(*experiments: Any) -> list[Any]:
    return await asyncio.gather(*experiments, return_exceptions=True)


def test_two_experiments_run_beside_each_other_and_change_nothing_of_the_process(
    server: ScriptedServer, toy: Callable, tmp_path: Path
) -> None:
    seen: list[dict[str, Any]] = []

    def watch(body: dict[str, Any]) -> str:
        seen.append(process_state())
        return server.default_answer(body)

    server.answer = watch
    optuna.logging.get_verbosity()  # optuna sets its own logger up when it is first used
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        before = process_state()
        kinds = ("mipro", "gepa", "bootstrap")
        records = asyncio.run(together(*(coroutine(server, tmp_path / kind, optimizer=kind) for kind in kinds)))
        assert process_state() == before
    assert [record["status"] for record in records] == ["ok"] * 3, records
    assert seen and all(state == before for state in seen)
    for noise in ("Average Metric", "Bootstrapping", "Trial", "Iteration", "it/s", "candidate programs found"):
        assert noise not in shown.getvalue()
    for kind in kinds:
        assert f"toy 1step {kind}" in shown.getvalue()
        log = (tmp_path / kind / "sweep.log").read_text()
        assert "Average Metric" in log
        assert ("Iteration" in log) == (kind == "gepa")


def test_records_are_those_of_experiments_that_run_one_after_the_other(
    server: ScriptedServer, toy: Callable, tmp_path: Path
) -> None:
    def programs(name: str, beside: bool) -> list[Any]:
        kinds = ("mipro", "gepa")
        cells = [coroutine(server, tmp_path / name / kind, optimizer=kind) for kind in kinds]
        if beside:
            asyncio.run(together(*cells))
        else:
            for cell in cells:
                asyncio.run(cell)
        return [read(tmp_path / name / kind / "program.json") for kind in kinds]

    assert programs("beside", True) == programs("after", False)


def test_the_same_experiment_twice_in_one_folder_is_paid_for_once(
    server: ScriptedServer, toy: Callable, tmp_path: Path
) -> None:
    first, second = asyncio.run(together(coroutine(server, tmp_path / "cell"), coroutine(server, tmp_path / "cell")))
    assert first["status"] == second["status"] == "ok"
    assert first == second
    assert server.calls == 35
    assert len(lines(tmp_path / "cell" / "calls.jsonl")) == 35


def test_another_experiment_in_the_same_folder_is_refused_beside_it_as_after_it(
    server: ScriptedServer, toy: Callable, tmp_path: Path
) -> None:
    both = asyncio.run(together(*(coroutine(server, tmp_path / "cell", num_steps=steps) for steps in (1, 2))))
    refused = [result for result in both if isinstance(result, UsageError)]
    assert len(refused) == 1 and "holds another experiment" in str(refused[0])
    assert [result["status"] for result in both if isinstance(result, dict)] == ["ok"]


def test_two_folders_in_one_results_folder_share_it(server: ScriptedServer, toy: Callable, tmp_path: Path) -> None:
    both = asyncio.run(together(*(coroutine(server, tmp_path / f"{steps}", num_steps=steps) for steps in (1, 2))))
    assert [record["status"] for record in both] == ["ok", "ok"]


def test_an_experiment_that_is_cancelled_makes_no_more_calls(
    server: ScriptedServer, toy: Callable, tmp_path: Path
) -> None:
    started, release = threading.Event(), threading.Event()

    def hold(body: dict[str, Any]) -> str:
        started.set()
        release.wait(10)
        return server.default_answer(body)

    server.answer = hold

    async def cancel() -> None:
        task = asyncio.create_task(coroutine(server, tmp_path / "cell", max_concurrency=2))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert server.calls <= 4
    assert read(tmp_path / "cell" / "results.json")["status"] == "interrupted"
