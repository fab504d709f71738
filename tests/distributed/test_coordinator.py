"""The coordinator with workers played by the test: money, lost workers, and newer attempts at a cell."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import dspy
import pytest

from scaling.distributed import worker
from scaling.distributed.coordinator import ORPHANS_ALLOWED, Coordinator
from scaling.distributed.protocol import Action, AttemptRequest, PackedError, Unreachable, connected
from scaling.testing import ScriptedServer
from scaling.types import CellStopped
from tests.support.coordinators import CELLS, PlayedWorker, a_coordinator, a_model, billed


def test_a_worker_that_is_lost_leaves_its_place_and_a_bill_at_its_highest(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    asked, go_on = threading.Event(), threading.Event()
    sweep_server.fault = lambda n, body: asked.set() or go_on.wait(30) and None if n == 0 else None
    with a_coordinator(tmp_path / "c.sqlite", max_cost=1.0, places=1) as coordinator:
        first, second = (
            PlayedWorker(coordinator, a_model(sweep_server)),
            PlayedWorker(coordinator, a_model(sweep_server), "b"),
        )
        thread = threading.Thread(target=lambda: pytest.raises(worker.Revoked, first.ask, "one"))
        thread.start()
        assert asked.wait(30)
        reserved = coordinator.gateway.cost_budget.reserved
        assert reserved > 0
        first.die()
        assert second.ask("two")  # the one place is free again
        go_on.set()
        thread.join(30)
        assert not thread.is_alive()
        usage = second.meter.total()
        assert coordinator.gateway.cost_budget.reserved == 0
        assert coordinator.gateway.cost_budget.spent == pytest.approx(reserved + usage.billed_cost_usd)
        assert coordinator.gateway.cache.spent_usd() == pytest.approx(coordinator.gateway.cost_budget.spent)
        assert PlayedWorker(coordinator, a_model(sweep_server)).ask("one")  # its flight was released
    assert len(sweep_server.requests) == 3


def test_a_newer_attempt_at_a_cell_ends_the_older_one(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        old = PlayedWorker(coordinator, a_model(sweep_server))
        old.ask("one")
        new = PlayedWorker(coordinator, a_model(sweep_server))
        with pytest.raises(worker.Revoked):
            old.ask("two")
        with pytest.raises(worker.Revoked):
            worker.RemoteReporter(old.gateway).phase(None, "record")
        assert new.ask("one") and new.meter.total().cache_hits == 1
    assert len(sweep_server.requests) == 1


def test_identical_requests_of_two_workers_are_sent_once(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()
    sweep_server.fault = lambda n, body: asked.set() or go_on.wait(30) and None
    answers: list[str] = []
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        first, second = (
            PlayedWorker(coordinator, a_model(sweep_server)),
            PlayedWorker(coordinator, a_model(sweep_server), "b"),
        )
        threads = [
            threading.Thread(target=lambda played=played: answers.append(played.ask("same")))
            for played in (first, second)
        ]
        threads[0].start()
        assert asked.wait(30)
        threads[1].start()
        go_on.set()
        for thread in threads:
            thread.join(30)
    assert len(answers) == 2 and len(set(answers)) == 1 and len(sweep_server.requests) == 1


def test_caps_hold_over_workers_that_are_lost(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    rng = random.Random(7)
    for trial in range(10):
        before, cap = billed(sweep_server), rng.uniform(0.002, 0.02)
        sweep_server.latency = 0.002
        with a_coordinator(tmp_path / f"{trial}.sqlite", max_cost=cap, places=8) as coordinator:
            dooms = {name: rng.sample(range(20), 3) for name in CELLS}

            def work(cell_id: str, coordinator=coordinator, dooms=dooms) -> None:
                played = PlayedWorker(coordinator, a_model(sweep_server), cell_id)
                for i in range(20):
                    if i in dooms[cell_id]:
                        threading.Timer(0.001, played.die).start()
                    try:
                        played.ask(f"{cell_id} question {i} {'x' * 97 * (i % 4)}")
                    except worker.Revoked:
                        played = PlayedWorker(coordinator, a_model(sweep_server), cell_id)
                        if played.action != Action.RUN:
                            return
                    except CellStopped as stopped:
                        assert stopped.status == "budget"
                        return

            threads = [threading.Thread(target=work, args=(name,)) for name in CELLS]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in threads)
            assert billed(sweep_server) - before <= cap
            assert (
                billed(sweep_server) - before
                <= coordinator.gateway.cache.spent_usd() + coordinator.gateway.cost_budget.reserved + 1e-9
            )


def lose(coordinator: Coordinator, played: PlayedWorker) -> None:
    """The worker dies, and the coordinator has counted it."""
    coordinator.reporter.has_said_something.clear()
    played.die()
    assert coordinator.reporter.has_said_something.wait(30)


def test_a_cell_that_kills_its_workers_runs_alone_and_then_no_more(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        lose(coordinator, PlayedWorker(coordinator, a_model(sweep_server)))
        came_further = PlayedWorker(coordinator, a_model(sweep_server))
        came_further.ask("one")
        lose(coordinator, came_further)  # whatever took this worker, the cell was not stuck
        lose(coordinator, PlayedWorker(coordinator, a_model(sweep_server)))
        assert PlayedWorker(coordinator, a_model(sweep_server)).action == Action.RUN_ALONE
        lose(coordinator, PlayedWorker(coordinator, a_model(sweep_server), alone=True))
        assert PlayedWorker(coordinator, a_model(sweep_server)).action == Action.GIVE_UP
        assert PlayedWorker(coordinator, a_model(sweep_server), "b").action == Action.RUN


def test_a_lone_process_whose_worker_is_killed_is_no_loss(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    model = a_model(sweep_server)
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        for _ in range(2):
            lose(coordinator, PlayedWorker(coordinator, model))
        for _ in range(4):  # its worker is killed, the cell is given to another worker, and that starts a process too
            orphan = PlayedWorker(coordinator, model, alone=True)
            assert PlayedWorker(coordinator, model).action == Action.RUN_ALONE
            with pytest.raises(worker.Revoked):
                orphan.ask("one")
        orphan = PlayedWorker(coordinator, model, alone=True)
        successor = PlayedWorker(coordinator, model, alone=True)  # two workers were killed, one process was slow
        assert successor.action == Action.RUN
        with pytest.raises(worker.Revoked):
            orphan.ask("one")
        assert successor.ask("one")
        assert PlayedWorker(coordinator, model).action == Action.RUN  # the cell has come further


def test_a_lone_cell_whose_hosts_crash_is_not_tried_without_end(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    """A host that crashes closes no socket: what ran there looks as if it had only lost its worker."""
    model = a_model(sweep_server)
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        for _ in range(2):
            lose(coordinator, PlayedWorker(coordinator, model))
        silent = []  # kept, so that their sockets stay open
        while len(silent) < 30 and PlayedWorker(coordinator, model).action == Action.RUN_ALONE:
            silent.append(PlayedWorker(coordinator, model, alone=True))
        assert len(silent) == ORPHANS_ALLOWED
        with pytest.raises(worker.WorkerDied, match=r"2 processes in a row died, and 10 lost their worker"):
            worker.run_attempt(coordinator.address, coordinator.key, AttemptRequest("a"))


def test_a_lone_process_that_died_is_one_loss_whether_or_not_its_end_was_noticed(
    sweep_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, dead = a_model(sweep_server), []

    def dies(*_: object) -> int:
        dead.append(PlayedWorker(coordinator, model, alone=True))
        return -9

    monkeypatch.setattr(worker, "_run_in_subprocess", dies)
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        lose(coordinator, PlayedWorker(coordinator, model, alone=True))
        after_death = PlayedWorker(coordinator, model, lone_process_died=True)
        assert after_death.action == Action.RUN  # one loss: after two, it would run alone
        lose(coordinator, after_death)
        with pytest.raises(worker.WorkerDied, match="3 processes in a row"):
            worker.run_attempt(coordinator.address, coordinator.key, AttemptRequest("a"))
        assert len(dead) == 1


def test_a_lone_process_that_never_begins_is_not_started_without_end(
    sweep_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.sys, "executable", "/bin/false")
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        for _ in range(2):
            lose(coordinator, PlayedWorker(coordinator, a_model(sweep_server)))
        with pytest.raises(worker.WorkerDied, match="3 times before it could begin"):
            worker.run_attempt(coordinator.address, coordinator.key, AttemptRequest("a"))


def test_a_cell_that_has_its_record_is_not_run_again(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    model = a_model(sweep_server)
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        played = PlayedWorker(coordinator, model)
        worker.RemoteReporter(played.gateway).end(None, "ok", "its record is written")
        late = PlayedWorker(coordinator, model, alone=True)  # whose worker was killed while this process started
        assert late.action == Action.SETTLED
        played.die()  # before Dask heard of the cell's end
        assert worker.run_attempt(coordinator.address, coordinator.key, AttemptRequest("a")) is True


def test_nobody_without_the_key_is_heard(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        with pytest.raises(Unreachable), connected(coordinator.address, b"guessed"):
            pass
        worker.ping(coordinator.address, coordinator.key)


def repacked(error: BaseException) -> BaseException:
    return PackedError.of(error).unpack()


def test_an_error_is_sent_with_its_causes() -> None:
    class Local(Exception):
        """Of a class that does not pickle."""

    refused = dspy.utils.exceptions.LMTransportError("no answer", model="m", status=429, retry_after=2.0)
    refused.__cause__ = ConnectionRefusedError(111, "refused")
    error = repacked(refused)
    assert (type(error), str(error), error.status, error.retry_after) == (type(refused), "[m] no answer", 429, 2.0)
    assert isinstance(error.__cause__, ConnectionRefusedError) and error.__cause__.errno == 111
    stopped = repacked(CellStopped("budget", "enough"))
    assert (stopped.status, str(stopped)) == ("budget", "enough")
    too_long = dspy.utils.exceptions.ContextWindowExceededError(message="long", model="m")
    assert isinstance(repacked(too_long), dspy.utils.exceptions.ContextWindowExceededError)
    assert "Local: unknown" in str(repacked(Local("unknown")))


def test_a_worker_is_refused_and_the_coordinator_learns_the_limit(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    limits = {"limit": "60", "remaining": "0", "reset": "60s"}
    headers = {f"x-ratelimit-{name}-requests": value for name, value in limits.items()}
    sweep_server.fault = lambda n, body: ("status", 429, headers) if n == 0 else None
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    with a_coordinator(tmp_path / "c.sqlite", places="auto", clock=lambda: now[0]) as coordinator:
        coordinator.gateway.sleep = sleep
        assert PlayedWorker(coordinator, a_model(sweep_server)).ask("one")
    assert len(sweep_server.requests) == 2
    assert sum(waits) >= 1.0  # a call a second is added to an empty bucket


def test_a_worker_without_a_key_or_the_folder_cannot_run_cells(tmp_path: Path) -> None:
    with a_coordinator(tmp_path / "c.sqlite") as coordinator:
        said = [
            worker.why_unfit([], keys, [], mark, coordinator.address, key)
            for keys, mark, key in (
                (["NO_SUCH_KEY"], tmp_path, coordinator.key),
                ([], tmp_path / "another folder" / "mark", coordinator.key),
                ([], tmp_path, b"another sweep's"),
                ([], tmp_path, coordinator.key),
            )
        ]
    assert "NO_SUCH_KEY is not set" in said[0] and "results folder" in said[1] and "Unreachable" in said[2]
    assert said[3] is None
