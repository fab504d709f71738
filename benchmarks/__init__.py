"""One package a benchmark: what it is, its signature and metric (`__init__.py`), its rows (`data.py`), its sample.

`BENCHMARK_CONFIG` in run_scaling_experiment.py lists them; that is the one place to add a new one.
"""
