"""From records to tables, tests, fits, figures and the report.

Reads files and never calls a model. It imports neither DSPy nor `run`, `llm`, `hosted` or `distributed`.
"""
