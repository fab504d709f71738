"""The learning curve of a cell: a point each time its optimizer has evaluated a candidate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from scaling.llm.meter import Meter
from scaling.records.record import CurvePoint


class StoppedWhenFlat(BaseException):
    """Ends an optimizer from inside its own evaluation; a BaseException, as optimizers swallow every Exception."""


class Curve(BaseCallback):
    """The learning curve: a point each time an optimizer has evaluated a candidate.

    Points come from DSPy's evaluate callbacks, never interpolated. `rows` says on which rows: GEPA tries a
    candidate on a minibatch of train first; only full passes over select move `best_val_score`.
    `incumbents` holds (rollouts, program) each time a full pass was the best so far. flat_after: rollouts without a
    new incumbent after which it raises StoppedWhenFlat; None never does.
    """

    def __init__(
        self,
        meter: Meter,
        select_ids: list[str],
        on_point: Callable[[list[CurvePoint]], None],
        flat_after: float | None = None,
    ):
        self.points: list[CurvePoint] = []
        self.incumbents: list[tuple[int, dspy.Module]] = []
        self.accepted = 0
        self._meter, self._ids, self._on_point = meter, set(select_ids), on_point
        self._flat_after = flat_after
        self._running: dict[str, tuple[list[dspy.Example], Any]] = {}
        self._started = time.monotonic()

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        devset = inputs.get("devset") or instance.devset
        self._running[call_id] = (devset, inputs.get("program"))

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        devset, program = self._running.pop(call_id)
        if exception is not None:
            return
        on_select = {example.get("id") for example in devset} <= self._ids
        scores = [float(getattr(score, "score", score)) for *_, score in outputs.results]
        score, full = sum(scores) / len(scores), on_select and len(devset) == len(self._ids)
        best = self.points[-1].best_val_score if self.points else None
        rollouts = self._meter.rollouts["optimize"]
        if full and (best is None or score > best):
            incumbent = program.deepcopy()
            incumbent.__dict__.pop("forward", None)  # GEPA evaluates with a forward that returns a trace as well
            self.incumbents.append((rollouts, incumbent))
            self.accepted += best is not None
            best = score
        used = self._meter.total()
        self.points.append(
            CurvePoint(
                rollouts=rollouts,
                lm_calls=used.calls,
                tokens=(used.prompt_tokens or 0) + (used.completion_tokens or 0),
                list_cost_usd=used.list_cost_usd,
                elapsed_seconds=time.monotonic() - self._started,
                rows="select" if on_select else "train",
                val_n=len(devset),
                candidate_val_score=score,
                best_val_score=best,
            )
        )
        self._on_point(self.points)
        if self._flat_after is not None and self.incumbents and rollouts - self.incumbents[-1][0] >= self._flat_after:
            raise StoppedWhenFlat

    def incumbent_at(self, rollouts: float) -> dspy.Module | None:
        """The best program known after that many rollouts; None before the first full pass."""
        programs = [program for at, program in self.incumbents if at <= rollouts]
        return programs[-1] if programs else None
