"""Every row of `make simulate`: a new procedure is one entry here."""

from simulations.procedures import PROCEDURES
from simulations.self_correction import correction_tables, properties

ROWS = (*PROCEDURES, correction_tables, properties)
