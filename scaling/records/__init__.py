"""The files of a results folder: their types, where they lie, how they are read and written.

Nothing here runs a cell or judges a result.
"""
