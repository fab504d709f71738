"""Optimizers that run as a job at a service: the job, its client, and the task app that the service calls.

Only the place that chooses an optimizer imports this folder.
"""
