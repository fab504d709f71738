"""`analyze_results.py compare`: whose answers to the same rows are better, whichever program made them.

It matches rows, judges pairs with the statistics of `scaling.analysis`, and writes what it found. Reading files is the
part of `scaling.readers`.
"""
