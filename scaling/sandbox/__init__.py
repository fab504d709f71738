"""Programs that models wrote, run and judged where they can reach nothing.

`python -m scaling.sandbox` fetches what the sandbox needs.
"""
