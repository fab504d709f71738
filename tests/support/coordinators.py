"""A coordinator whose workers are played by the test, in its own process and over real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scaling.concurrency import Concurrency
from scaling.distributed import worker
from scaling.distributed.coordinator import Coordinator
from scaling.distributed.protocol import Action, AttemptRequest, connected
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.models import Model
from scaling.run.runner import Settings
from scaling.testing import ScriptedServer

PRICED = {"input_usd_per_million": 3.0, "output_usd_per_million": 11.0, "max_output_tokens": 50}
CELLS = ("a", "b")


class KeptProgress:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.has_said_something = threading.Event()

    def say(self, text: str) -> None:
        self.said.append(text)
        self.has_said_something.set()

    def phase(self, cell: Any, phase: str) -> None:
        pass

    def end(self, cell: Any, status: str, text: str) -> None:
        self.say(f"{status} {text}")


class PlayedWorker:
    """A worker's end of an attempt, in this process: its LM calls go to the coordinator over a real socket."""

    def __init__(self, coordinator: Coordinator, model: Model, cell_id: str = "a", **request: bool):
        self._open = ExitStack()
        self.channel = self._open.enter_context(connected(coordinator.address, coordinator.key))
        self.channel.send(AttemptRequest(cell_id, **request))
        self.action = self.channel.receive().action
        if self.action == Action.RUN:
            self.gateway = worker.RemoteGateway(self.channel, None)
            self.gateway.meter = self.meter = Meter(cell_id)
            self.lm = make_lm(model, self.gateway, self.meter, 0, 0.7, phase="evaluate")

    def ask(self, question: str) -> str:
        return self.lm(messages=[{"role": "user", "content": question}])[0]

    def die(self) -> None:
        """As the kernel closes the sockets of a process that was killed."""
        self._open.close()


class PlayedCoordinator(Coordinator):
    """Its workers need no task: they are played."""

    def pickled_task(self, cell_id: str) -> bytes:
        return b"" if cell_id in self._tasks else super().pickled_task(cell_id)


@contextmanager
def a_coordinator(
    path: Path,
    max_cost: float | None = None,
    places: Concurrency = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Coordinator]:
    """A coordinator of two made-up cells whose workers are played by the test."""
    cache = Cache(path)
    tasks = [SimpleNamespace(cell=SimpleNamespace(cell_id=name, label=name)) for name in CELLS]
    gateway = Gateway(cache, max_cost, places, clock)
    coordinator = PlayedCoordinator(tasks, gateway, KeptProgress(), Settings(), "127.0.0.1")
    try:
        yield coordinator
    finally:
        coordinator.close()
        cache.close()


def a_model(server: ScriptedServer) -> Model:
    return Model(id="toy/x", route="openai/scripted", api_base=server.url, **PRICED)


def billed(server: ScriptedServer) -> float:
    """USD of all that the server has answered."""
    return server.prompt_tokens * 3e-6 + server.completion_tokens * 11e-6
