"""What one cell uses: its calls in calls.jsonl, sums by phase, rollouts, and how fast its calls are."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from scaling.records.codec import encode
from scaling.records.record import CallRecord, HostedJob, Usage
from scaling.types import CellStopped

PROPOSING_ROLES = ("reflection", "proposer")


@dataclass
class CallTimes:
    """A cell's calls of one kind. `timed` are those whose seconds say how fast the cell's calls are."""

    calls: int = 0
    timed: int = 0
    seconds: float = 0.0

    def add(self, call: CallRecord, timed: bool) -> None:
        """Count a call; a cache hit takes no time."""
        self.calls += 1
        self.timed += timed
        self.seconds += 0.0 if call.cache_hit else call.latency_seconds or 0.0


@dataclass(frozen=True)
class Progress:
    """How far a cell is: its rollouts by phase, and its calls by kind."""

    rollouts: dict[str, int]
    times: dict[str, CallTimes]


class Meter:
    """What one cell used. Exact under threads.

    calls_file: gets a line per call. rank: who goes first where calls wait for a slot at the provider; 0 before 1.
    """

    def __init__(self, cell_id: str, calls_file: Path | None = None, rank: int = 0):
        self.cell_id, self.rank = cell_id, rank
        self.usage: dict[str, Usage] = defaultdict(Usage)
        self.proposals = Usage()  # the reflection's or proposer's part of it
        self.rollouts: dict[str, int] = defaultdict(int)
        self.failures: Counter[str] = Counter()  # reasons of calls that failed for good, with how often
        self.times: dict[str, CallTimes] = defaultdict(CallTimes)  # by kind: optimize, propose, evaluate
        self.unparsed_proposals = 0
        self.hosted: HostedJob | None = None  # the cell's hosted job, and its calls as its rollouts end
        self.hosted_calls: list[CallRecord] = []
        self.counts_optimizer = True
        self._has_sent = False
        self._lock = threading.Lock()
        if calls_file:
            calls_file.unlink(missing_ok=True)  # whoever still writes to an older one writes to that
        self._lines = calls_file.open("wb") if calls_file else None

    def add_call(self, call: CallRecord) -> None:
        """Count a call. Raises CellStopped where calls.jsonl cannot be written."""
        with self._lock:
            add_to(self.usage[call.phase], call)
            is_proposal = call.role in PROPOSING_ROLES
            # A cell that goes on after an interruption first replays what it has: that says nothing of its speed.
            self._has_sent |= not call.cache_hit
            self.times["propose" if is_proposal else call.phase].add(call, self._has_sent)
            if is_proposal:
                add_to(self.proposals, call)
            if self.hosted is not None and call.phase == "optimize":
                self.hosted_calls.append(call)
            try:
                if self._lines:
                    self._lines.write(encode(call) + b"\n")
            except OSError as error:  # optimizers would take it for a score of 0
                raise CellStopped("interrupted", f"calls.jsonl cannot be written ({error})") from error

    def add_failure(self, reason: str) -> None:
        """Count why a call failed for good."""
        with self._lock:
            self.failures[reason] += 1

    def add_rollout(self, phase: str) -> None:
        """Count one run of the whole program on one example."""
        with self._lock:
            self.rollouts[phase] += 1

    def start_hosted_job(self, job: HostedJob) -> None:
        """Keep the optimizer's calls from now on; what its service bills for them and for its proposals is unknown."""
        self.hosted = job
        self.mark_unknown("optimize", "list_cost_usd", "billed_cost_usd")

    def lose_hosted_calls(self) -> None:
        """What the optimizer used is not known, as whoever counted it was killed."""
        self.counts_optimizer = False

    def mark_unknown(self, phase: str, *sums: str) -> None:
        """Make these sums of a phase null: a part of them cannot be known. Tokens: once the phase has ended."""
        with self._lock:
            for name in sums:
                setattr(self.usage[phase], name, None)

    def add_unparsed_proposal(self) -> None:
        """Count a proposal that could not be had or parsed."""
        with self._lock:
            self.unparsed_proposals += 1

    def progress(self) -> Progress:
        """How far the cell is now."""
        with self._lock:
            return Progress(dict(self.rollouts), {kind: replace(times) for kind, times in self.times.items()})

    def follow(self, progress: Progress) -> None:
        """Take over the progress of the cell's meter in another process."""
        with self._lock:
            self.rollouts.update(progress.rollouts)
            self.times.update(progress.times)

    def total(self) -> Usage:
        """Sums over all phases."""
        with self._lock:
            parts = list(self.usage.values())
        total = Usage()
        for name in total.__struct_fields__:
            values = [getattr(part, name) for part in parts]
            setattr(total, name, None if None in values else sum(values))
        return total

    def close(self) -> None:
        """Close calls.jsonl."""
        if self._lines:
            self._lines.close()


def add_to(usage: Usage, call: CallRecord) -> None:
    """Add a call to sums: tokens it does not know count as 0; a cost it does not know makes the sum unknown."""
    usage.calls += 1
    usage.cache_hits += call.cache_hit
    usage.failed_calls += call.error is not None
    usage.prompt_tokens = (usage.prompt_tokens or 0) + (call.prompt_tokens or 0)
    usage.completion_tokens = (usage.completion_tokens or 0) + (call.completion_tokens or 0)
    if call.reasoning_tokens is not None:
        usage.reasoning_tokens = (usage.reasoning_tokens or 0) + call.reasoning_tokens
    usage.list_cost_usd = add_usd(usage.list_cost_usd, call.list_cost_usd)
    usage.billed_cost_usd = add_usd(usage.billed_cost_usd, call.billed_cost_usd)


def add_usd(total: float | None, amount: float | None) -> float | None:
    """Dollars added to 12 digits, so that the order in which threads end does not show in the sum."""
    return None if total is None or amount is None else round(total + amount, 12)
