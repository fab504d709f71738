"""A cell's program as plain data, which runs without DSPy: made, written in the formats of others, and scored again.

`outside.py` is the program that others get. It imports nothing of this project.
"""
