"""Imported only when a loss is traced."""

from utils import networks

WHOSE = networks.__doc__.split()[3]


def squared(x):
    return (x**2).mean()
