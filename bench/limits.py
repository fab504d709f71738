"""Limits that nobody knows: a fixed number of places against places that adapt, side by side, on three providers.

`make bench` runs it (about three minutes) and rewrites bench/limits.md. Each provider is a token bucket on loopback
that refuses with 429 what finds it empty, and says nothing of its size. Callers always have another question. All arms
run at the same time against one server process.
"""

from __future__ import annotations

import operator
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.gateway import a_model
from bench.process import beside
from bench.results import Measure, write_results
from scaling.concurrency import Concurrency
from scaling.llm.cache import Cache
from scaling.llm.errors import CallFailed
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.testing import ScriptedServer
from scaling.types import CellStopped

LATENCY, SECONDS, FIRST_MINUTE, CALLERS = 0.3, 150.0, 60.0, 48
# Calls a second, and calls at once.
LIMITS = {"120 a minute, 20 at once": (2.0, 20.0), "600 a minute, 300 at once": (10.0, 300.0),
          "2,400 a minute, 40 at once": (40.0, 40.0)}  # fmt: skip
ARMS: dict[str, Concurrency] = {"auto": "auto", "32 places": 32}


@dataclass
class Bucket:
    """A provider's bucket, and when calls came: taken and refused, in seconds of the server's clock."""

    rate: float
    burst: float
    level: float
    at: float = field(default_factory=time.monotonic)
    taken: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def fault(self) -> tuple[Any, ...] | None:
        """What befalls a call that comes now."""
        now = time.monotonic()
        self.level, self.at = min(self.burst, self.level + self.rate * (now - self.at)), now
        if self.level < 1:
            self.refused.append(now)
            return ("status", 429, {})
        self.level -= 1
        self.taken.append(now)
        return None


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, beside(serve) as (url, ask):
        started = time.monotonic()
        threads = [
            threading.Thread(target=run_arm, args=(url, name_of(arm, limit), places, Path(scratch)))
            for limit in LIMITS
            for arm, places in ARMS.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counted: dict[str, tuple[list[float], list[float]]] = ask("came")
    measures = []
    for limit in LIMITS:
        for arm in ARMS:
            measures += rows(arm, limit, counted[name_of(arm, limit)], started)
    write_results(Path(__file__).with_suffix(".md"), "Limits that nobody knows", measures)


def rows(arm: str, limit: str, came: tuple[list[float], list[float]], started: float) -> list[Measure]:
    """How much of its bucket an arm used after the first minute, and how many calls were refused."""
    taken, refused = ([at for at in times if at < started + SECONDS] for times in came)
    later_taken, later_refused = (sum(at >= started + FIRST_MINUTE for at in times) for times in (taken, refused))
    share = later_taken / (LIMITS[limit][0] * (SECONDS - FIRST_MINUTE))
    percent = 100 * later_refused / (later_taken + later_refused)
    goals = (0.9, 1.0) if arm == "auto" else (None, None)
    in_all = f"{len(refused)} of {len(taken) + len(refused)} calls in all, the first minute included"
    return [
        Measure(f"{limit}; {arm}: used of the limit after the first minute", share, "", goals[0], operator.ge, ""),
        Measure(f"{limit}; {arm}: refused after the first minute", percent, "%", goals[1], operator.lt, in_all),
    ]


def name_of(arm: str, limit: str) -> str:
    """The model that stands for an arm at a provider."""
    return f"{arm}-{LIMITS[limit][0]:g}".replace(" ", "-")


def run_arm(url: str, name: str, places: Concurrency, folder: Path) -> None:
    """Ask one question after the other, with many callers, until the time is over."""
    gateway = Gateway(Cache(folder / name / "cache.sqlite"), max_cost=1e6, max_concurrency=places)
    model = replace(a_model(url), route=f"openai/{name}")
    lm = make_lm(model, gateway, Meter("bench"), 0, 0.7, phase="evaluate")
    over = time.monotonic() + SECONDS

    def ask(caller: int) -> None:
        number = 0
        while time.monotonic() < over:
            number += 1
            try:
                lm(f"question {number} of caller {caller}")
            except CallFailed:
                continue
            except CellStopped:
                return

    callers = [threading.Thread(target=ask, args=(caller,)) for caller in range(CALLERS)]
    for caller in callers:
        caller.start()
    time.sleep(max(0.0, over - time.monotonic()))
    gateway.stop("interrupted", "the time is over")
    for caller in callers:
        caller.join()


def serve(pipe: Any) -> None:
    """The server process. Each model is a provider with a bucket of its own."""
    buckets = {name_of(arm, limit): Bucket(*LIMITS[limit], LIMITS[limit][1]) for limit in LIMITS for arm in ARMS}
    lock = threading.Lock()

    def fault(number: int, body: dict[str, Any]) -> tuple[Any, ...] | None:
        with lock:
            return buckets[body["model"]].fault()

    with ScriptedServer(latency=LATENCY, fault=fault) as server:
        pipe.send(server.url)
        while pipe.recv() != "stop":
            pipe.send({name: (bucket.taken, bucket.refused) for name, bucket in buckets.items()})
        pipe.send(None)


if __name__ == "__main__":
    main()
