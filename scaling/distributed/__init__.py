"""Cells in other processes and on other machines: the Dask engine, its coordinator, its workers, their protocol.

Only the place that chooses an engine imports this folder.
"""
