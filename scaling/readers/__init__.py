"""Results of evaluation programs, ours and others', as one type of rows: one small module for each format.

A reader makes `Result`s of files and judges nothing. A new format is a module here and its entry in `formats.FORMATS`.
It imports no DSPy and needs none of the programs whose files it reads.
"""
