"""Imported only when a loss is traced."""


def squared(x):
    return (x**2).mean()
