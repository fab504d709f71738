"""The table of questions that a study can ask of its cells. Nothing here imports the analysis.

To add a question, add one `Question`, and let the function that answers it put its name into the rows that it makes
(`TestRow.asks`; the functions are listed in scaling/analysis/answers.py). The plan then says beforehand whether the
question can be answered, and the report says what the answer is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scaling.planning.optimizers import TRANSFER, is_hosted, optimizes
from scaling.types import CellProgram

POINTS, TENFOLD = "points", "points for ten times the size"
CORRELATION, EXPONENT = "rank correlation", "exponent"
# How many of the unit an effect of 1 is.
UNIT_SIZE = {POINTS: 100.0, TENFOLD: 100.0, CORRELATION: 1.0, EXPONENT: 1.0}


Cells = Sequence[CellProgram]


@dataclass(frozen=True)
class Question:
    """A question: its name in studies, tables and reports, what it asks, and the unit of its effect.

    asked_by: whether these cells ask it; a study can name it beside that. needs: the cells without which it has
    nothing to compare. steps: of a hypothesis about chains, the numbers of steps that it compares.
    """

    name: str
    text: str
    asked_by: Callable[[Cells], bool]
    needs: str
    topic: str = ""
    unit: str = POINTS
    steps: tuple[int, ...] = ()

    @property
    def sentence(self) -> str:
        """'H1 scaling: Is the score at 5 steps higher than at 1 step?'."""
        return f"{self.name} {self.topic}: {self.text}" if self.topic else f"{self.name}: {self.text}"


def _values(cells: Cells, field: str) -> set[object]:
    return {getattr(cell, field) for cell in cells}


def _optimized_chains_vary_in_steps(cells: Cells) -> bool:
    chains = [cell for cell in cells if cell.pipeline == "chain" and optimizes(cell.optimizer)]
    return len(_values(chains, "steps")) > 1


def _several_models(cells: Cells) -> bool:
    return len(_values([cell for cell in cells if cell.optimizer != TRANSFER.name], "model")) > 1


def _optimized(cells: Cells) -> bool:
    return any(optimizes(cell.optimizer) for cell in cells)


def _transferred(cells: Cells) -> bool:
    return TRANSFER.name in _values(cells, "optimizer")


def _self_correction(cells: Cells) -> bool:
    return "self_correct" in _values(cells, "pipeline")


def _self_correction_of_models(cells: Cells) -> bool:
    return _self_correction(cells) and len(_values(cells, "model")) > 1


def _controls(cells: Cells) -> bool:
    pipelines = _values(cells, "pipeline")
    return bool({"vote", "repeat"} & pipelines) and not {"self_correct", "resample"} & pipelines


def _hosted(cells: Cells) -> bool:
    return any(is_hosted(cell.optimizer) for cell in cells)


def _optimizers(cells: Cells) -> bool:
    return len(_values([c for c in cells if optimizes(c.optimizer)], "optimizer")) > 1 and not _hosted(cells)


_CHAINS = "optimized chains of several numbers of steps"
_TURNS = "cells of pipeline self_correct without an optimizer and feedback"
_IN_ORDER = (
    Question("H1", "Is the score at 5 steps higher than at 1 step?", _optimized_chains_vary_in_steps, _CHAINS,
             "scaling", steps=(1, 5)),
    Question("H2", "Is the rise from 1 to 3 steps, a call, larger than from 3 to 5?", _optimized_chains_vary_in_steps,
             _CHAINS, "diminishing returns", steps=(1, 3, 5)),
    Question("H3", "Does GEPA minus MIPROv2 change from 1 to 5 steps?", _optimized_chains_vary_in_steps, _CHAINS,
             "optimizer preference", steps=(1, 5)),
    Question("H4", "Is 5 minus 1 steps larger on reasoning than on classification?", _optimized_chains_vary_in_steps,
             _CHAINS, "task dependency", steps=(1, 5)),
    Question("improvement", "Does optimization improve the program?", _optimized, "programs that an optimizer changed"),
    Question("optimizers", "Which optimizer gives the better program on an equal budget?", _optimizers,
             "two optimizers on equal terms"),
    Question("controls", "Is the chain better than the same calls without it?", _controls,
             "chains (study pipeline) and controls (vote, repeat) at the same number of calls"),
    Question("models", "Which model scores higher with the same program?", _several_models,
             "two models with the same program"),
    Question("size", "Does the score grow with the model's size?", _several_models, "two models with the same program",
             unit=TENFOLD),
    Question("mipro", "Do hosted MIPRO and MIPROv2 give equally good programs?", _hosted,
             "cells of a hosted MIPRO and of MIPROv2"),
    Question("transfer", "Does a program that was optimized on one model help another?", _transferred,
             "transferred programs (--transfer-from) that change an answer"),
    Question("correction", "Do later turns correct answers, or only draw again?", _self_correction,
             "cells of pipeline self_correct"),
    Question("RQ1", "Does gain grow with the model's size?", _self_correction_of_models, _TURNS, unit=TENFOLD),
    Question("RQ2", "Which properties go with gain?", _self_correction_of_models, _TURNS, unit=CORRELATION),
    Question("RQ3", "Does size matter more on some tasks?", _self_correction_of_models, _TURNS, unit=TENFOLD),
    Question("RQ4", "From which size does correcting pay?", _self_correction_of_models, _TURNS),
    Question("exponent", "With which power of the model's size does gain grow?", _self_correction_of_models, _TURNS,
             unit=EXPONENT),
)  # fmt: skip
QUESTIONS: dict[str, Question] = {question.name: question for question in _IN_ORDER}


def asked_by(cells: Cells) -> list[str]:
    """Names of the questions that these cells ask, in the order of the table."""
    return [name for name, question in QUESTIONS.items() if question.asked_by(cells)]


def reads_equal_calls(cell: CellProgram) -> bool:
    """Whether a question reads the cell's score at equal calls, that of the best candidate after budget / steps.

    H1 does, at its largest number of steps.
    """
    return cell.pipeline == "chain" and optimizes(cell.optimizer) and cell.steps == QUESTIONS["H1"].steps[-1]
