"""The options of the optimizers, one dataclass each: the type, the bounds and the default of an option stand here.

Names are those of DSPy. A cell holds what differs from the default (`optimizer_options`), so that an option that is
left alone changes no cell's id. Nothing here imports DSPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic

from scaling.types import Flag

DEMOS = 4
OptionCount = Annotated[int, pydantic.Field(strict=True, ge=1, le=100)]
OptionSize = Annotated[int, pydantic.Field(strict=True, ge=0, le=1000)]


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """What every optimizer's options are; by itself, those of one that has nothing to set."""

    @property
    def demo_limits(self) -> tuple[int, int]:
        """The most bootstrapped and the most labelled demos of a predictor, where the optimizer adds demos."""
        return DEMOS, DEMOS


@dataclass(frozen=True, kw_only=True)
class GepaOptions(OptimizerOptions):
    """GEPA: train rows a reflection sees, which candidate is revised next, and which of its roles."""

    reflection_minibatch_size: OptionCount = 3
    candidate_selection_strategy: Literal["pareto", "current_best"] = "pareto"
    component_selector: Literal["round_robin", "all"] = "round_robin"
    use_merge: Flag = True


@dataclass(frozen=True, kw_only=True)
class MiproInstructOptions(OptimizerOptions):
    """MIPROv2 without demos. num_candidates: None lets the budget decide. minibatch_size: select rows that a trial is
    scored on, where the best by minibatches is scored on all of them at intervals; 0 scores each trial on all."""

    num_candidates: Annotated[int, pydantic.Field(strict=True, ge=3, le=100)] | None = None
    minibatch_size: OptionSize = 0

    @property
    def demo_limits(self) -> tuple[int, int]:
        return 0, 0


@dataclass(frozen=True, kw_only=True)
class MiproOptions(MiproInstructOptions):
    """MIPROv2 with demos."""

    max_bootstrapped_demos: OptionCount = DEMOS
    max_labeled_demos: Annotated[int, pydantic.Field(strict=True, ge=0, le=100)] = DEMOS

    @property
    def demo_limits(self) -> tuple[int, int]:
        return self.max_bootstrapped_demos, self.max_labeled_demos


@dataclass(frozen=True, kw_only=True)
class BootstrapOptions(OptimizerOptions):
    """BootstrapFewShot with random search. num_candidate_programs: shuffled demo sets; None lets the budget decide."""

    num_candidate_programs: Annotated[int, pydantic.Field(strict=True, ge=0, le=100)] | None = None
    max_bootstrapped_demos: OptionCount = DEMOS
    max_labeled_demos: OptionCount = DEMOS

    @property
    def demo_limits(self) -> tuple[int, int]:
        return self.max_bootstrapped_demos, self.max_labeled_demos
