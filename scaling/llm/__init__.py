"""Everything between a program and a model: the gateway of all calls, its cache and limits, prompt formats, servers.

Nothing here knows about optimizers, cells' records or the analysis.
"""
