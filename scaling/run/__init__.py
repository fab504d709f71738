"""Running cells: programs, optimizers, scoring, the record, and what is estimated and shown.

This is the half that imports DSPy. Reading records belongs to `scaling.analysis`.
"""
