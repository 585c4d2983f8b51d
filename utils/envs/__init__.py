"""Environments and their datasets.

Modules here never import JAX: worker processes load them.
"""
