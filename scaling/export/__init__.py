"""Records to the formats of other programs: one module a target, and what all of them are given.

Nothing here imports DSPy, runs a cell or spends anything. To add a target, write its function and add one `Target` to
the table in `targets.py`.
"""
