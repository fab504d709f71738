"""What the runner does around the cells: flags, checks before the first call, the printed plan, the choice of engine.

The one place that knows of hosted jobs and of Dask. Nothing else of the library imports from here.
"""
