"""What can go wrong with a batch: rows without an answer, a refusal, an API that is away, a limit, a cap, Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from scaling import batch_offers
from scaling.testing import BatchServer
from scaling.types import EXIT_CAP, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from tests.support.batches import BATCH, bills, records, spent, undisturbed_and, write_batch_study
from tests.support.sweeps import outcome, run, start

pytestmark = pytest.mark.usefixtures("at_once")


LINE_FAULTS = {
    "too many": ("status", 429), "a server's error": ("status", 500), "overloaded": ("status", 503),
    "garbage": ("garbage",),
}  # fmt: skip


@pytest.mark.parametrize("fault", LINE_FAULTS.values(), ids=LINE_FAULTS)
def test_what_a_batch_does_not_answer_is_in_the_next_one(
    batch_server: BatchServer, tmp_path: Path, fault: tuple
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    asked = len(batch_server.requests)
    batch_server.fault = lambda n, body: fault if n < asked + 5 else None
    code, said = run([*flags, *BATCH], tmp_path / "out")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "out") == expected
    assert "5 requests to toy/priced were not answered" in said
    sizes = [len(batch.lines) for batch in batch_server.batches.values()]
    assert len(sizes) == 3 and sizes[1] == 5
    highest = [usd for _, usd, _ in bills(tmp_path / "out") if usd > 200 * 5.5e-6]
    assert len(highest) == (5 if fault == ("garbage",) else 0)  # a bad answer may have been billed
    assert sum(usd == 0 for _, usd, _ in bills(tmp_path / "out")) == (0 if fault == ("garbage",) else 5)


def test_an_expired_batch_keeps_what_it_answered(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    batch_server.batch_fault = lambda n, lines: ("expires", 7) if n == 0 else ("lacks", 2) if n == 1 else None
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected
    sizes = [len(batch.lines) for batch in batch_server.batches.values()]
    assert sizes == [sizes[0], sizes[0] - 7, 2]


def test_what_three_batches_do_not_answer_is_asked_live(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    live = batch_server.calls
    batch_server.batch_fault = lambda n, lines: ("expires", len(lines) - 2) if len(batch_server.batches) < 3 else None
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected
    left = batch_server.calls - live - batch_server.batch_calls
    assert left >= 2
    assert spent(tmp_path / "out") > spent(tmp_path / "live") / 2


def test_a_refused_request_is_asked_live_which_knows_what_it_means(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, _ = undisturbed_and(batch_server, tmp_path, [1])
    too_long = ("status", 400, {}, "This model's maximum context length is 1000 tokens", "context_length_exceeded")
    marked = batch_server.requests[0]["messages"]
    batch_server.fault = lambda n, body: too_long if body["messages"] == marked else None
    assert run(flags, tmp_path / "faulty")[0] == EXIT_OK
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == outcome(tmp_path / "faulty")
    assert len(batch_server.batches) == 1
    (record,) = records(tmp_path / "out")
    assert record["error_rates"]["infrastructure"] == 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (("failed", "invalid_json_format", "line 3 is no JSON"), "failed (invalid_json_format: line 3 is no JSON)"),
        (("refused", 400), "refused (HTTP 400"),
        (("refused", 403), "refused (HTTP 403"),
    ],
)
def test_a_batch_that_fails_as_a_whole_stops_the_cells_and_asks_nothing_live(
    batch_server: BatchServer, tmp_path: Path, fault: tuple, says: str
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    calls = batch_server.calls
    batch_server.batch_fault = lambda n, lines: fault
    code, said = run([*flags, *BATCH], tmp_path / "out")
    assert code == EXIT_FAILED, said
    assert all(says in record["error"]["message"] for record in records(tmp_path / "out"))
    assert "--retry-failed" in records(tmp_path / "out")[0]["error"]["message"]
    assert batch_server.calls == calls and spent(tmp_path / "out") == 0
    batch_server.batch_fault = None
    assert run([*flags, *BATCH, "--retry-failed"], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected


def test_a_batch_that_the_provider_has_no_room_for_is_sent_again(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    full = ("failed", "token_limit_exceeded", "Enqueued token limit reached")
    batch_server.batch_fault = lambda n, lines: full if n < 2 else None
    code, said = run([*flags, *BATCH], tmp_path / "out")
    assert code == EXIT_OK and said.count("has no room for a batch now") == 2
    assert outcome(tmp_path / "out") == expected
    batch_server.batch_fault = lambda n, lines: full
    code, said = run([*flags, *BATCH], tmp_path / "full")
    assert code == EXIT_FAILED
    assert "Enqueued token limit reached" in records(tmp_path / "full")[0]["error"]["message"]


def test_a_batch_whose_id_is_lost_on_the_way_is_looked_for(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    batch_server.batch_fault = lambda n, lines: ("lost",) if n == 0 else None
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected and len(batch_server.batches) == 1


def test_a_batch_that_is_gone_counts_at_its_highest_cost(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    batch_server.batch_fault = lambda n, lines: ("gone",) if "once" not in seen and not seen.add("once") else None
    seen: set[str] = set()
    code, said = run([*flags, *BATCH], tmp_path / "out")
    assert code == EXIT_OK and "is not known there any more" in said
    assert outcome(tmp_path / "out") == expected
    assert spent(tmp_path / "out") > spent(tmp_path / "live")


def test_a_batch_api_that_is_away_for_a_while_changes_nothing(
    batch_server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    reply = batch_server.reply
    monkeypatch.setattr(
        batch_server, "reply",
        lambda *request: (503, {"error": "away"}) if batch_server.batch_requests % 5 == 1 and bump(batch_server)
        else reply(*request),
    )  # fmt: skip
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected


def bump(server: BatchServer) -> bool:
    server.batch_requests += 1
    return True


def test_files_over_the_providers_limits_are_split(
    batch_server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    offer = batch_offers.OFFERS["openai"]
    monkeypatch.setitem(batch_offers.OFFERS, "openai", replace(offer, most_requests=5))
    assert run([*flags, *BATCH], tmp_path / "few")[0] == EXIT_OK
    sizes = [len(batch.lines) for batch in batch_server.batches.values()]
    assert max(sizes) == 5 and sum(sizes) == batch_server.batch_calls
    monkeypatch.setitem(batch_offers.OFFERS, "openai", replace(offer, most_bytes=5000))
    assert run([*flags, *BATCH], tmp_path / "small")[0] == EXIT_OK
    assert max(map(len, batch_server.files.values())) > 5000  # of the first sweep
    small = list(batch_server.files.values())[len(sizes) :]
    assert len(small) > 1 and max(map(len, small)) <= 5000
    assert outcome(tmp_path / "few") == outcome(tmp_path / "small") == expected


def test_a_cap_that_holds_a_part_sends_that_part_first(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    enough = 0.8 * spent(tmp_path / "live")
    code, said = run([*flags, *BATCH, "--max-cost", str(enough)], tmp_path / "out")
    assert code == EXIT_OK, said
    assert "wait until the batches under way are billed" in said
    assert outcome(tmp_path / "out") == expected
    assert len(batch_server.batches) > 2 and spent(tmp_path / "out") <= enough


def test_a_cap_that_is_reached_between_rounds_stops_and_a_higher_one_goes_on(
    batch_server: BatchServer, tmp_path: Path
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    cap = spent(tmp_path / "live") / 3
    code, said = run([*flags, *BATCH, "--max-cost", str(cap)], tmp_path / "out")
    assert code == EXIT_CAP, said
    assert 0 < spent(tmp_path / "out") <= cap
    assert run([*flags, *BATCH, "--max-cost", str(100 * cap)], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected
    answered = batch_server.batch_calls
    assert run([*flags, *BATCH], tmp_path / "whole")[0] == EXIT_OK
    assert batch_server.batch_calls == 2 * answered  # nothing was paid for twice


def test_ctrl_c_leaves_the_batch_and_the_same_command_waits_for_it(batch_server: BatchServer, tmp_path: Path) -> None:
    flags = [*write_batch_study(tmp_path, batch_server.url, [1, 2], ["none"]), *BATCH]
    assert run(flags, tmp_path / "whole")[0] == EXIT_OK
    answered = batch_server.batch_calls
    looked = threading.Event()
    batch_server.looks = 10**9
    batch_server.on_request = lambda n, method, path: looked.set() if method == "GET" else None
    process = start(flags, tmp_path / "out")
    assert looked.wait(60)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, said
    assert "the same command to continue" in said and "Traceback" not in said
    batch_server.looks = 1
    shutil.copytree(tmp_path / "out", tmp_path / "live")
    assert "requests are in batches under way" in run(flags[: -len(BATCH)], tmp_path / "live")[1]
    code, said = run(flags, tmp_path / "out")
    assert code == EXIT_OK and "was sent before" in said
    assert batch_server.batch_calls == 2 * answered
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")


def test_a_sweep_that_is_finished_live_pays_for_the_rest_alone(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    batch_server.batch_fault = lambda n, lines: ("failed", "x", "y") if n == 1 else None
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_FAILED  # in the second round
    live = batch_server.calls
    answered = batch_server.batch_calls
    code, said = run([*flags, "--retry-failed"], tmp_path / "out")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "out") == expected
    assert 0 < batch_server.calls - live < answered  # the second round alone


def test_draws_of_a_row_are_in_the_first_round(batch_server: BatchServer, tmp_path: Path) -> None:
    flags = [*write_batch_study(tmp_path, batch_server.url, [1], ["none"]), "--draws", "3"]
    assert run(flags, tmp_path / "live")[0] == EXIT_OK
    calls = batch_server.calls
    assert run([*flags, *BATCH], tmp_path / "batch")[0] == EXIT_OK
    assert outcome(tmp_path / "batch") == outcome(tmp_path / "live")
    assert batch_server.batch_calls == batch_server.calls - calls == calls and len(batch_server.batches) == 1
