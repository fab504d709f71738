"""From a study to a list of cells: names, sizes, budgets and what each optimizer needs, all without DSPy.

Running the cells belongs to `scaling.run`.
"""
