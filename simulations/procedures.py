"""All procedures, a function each: repeats -> what was observed, and what is accepted (STATISTICS.md, 8 and 9)."""

from __future__ import annotations

from simulations.contrasts import contrasts, missing_rows, scores, uneven_runs, unoptimized
from simulations.guards import guards
from simulations.hypotheses import cut_files, default_study, false_verdicts, no_variation, partial_nulls, power
from simulations.models import expected_scores, model_power, model_tables
from simulations.outcome import Procedure
from simulations.proportions import mcnemar, newcombe, wilson
from simulations.self_correction import correction_tables, properties
from simulations.sequential import DESIGN_PROCEDURES
from simulations.shapes import exponents, shapes, sizes, straight

# A new procedure is one entry here.
PROCEDURES: tuple[Procedure, ...] = (
    wilson, newcombe, mcnemar, contrasts, uneven_runs, missing_rows, unoptimized, scores, false_verdicts,
    partial_nulls, no_variation, cut_files, power, default_study, shapes, straight, sizes, exponents, guards,
    correction_tables, properties, model_tables, model_power, expected_scores, *DESIGN_PROCEDURES,
)  # fmt: skip
