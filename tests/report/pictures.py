"""What is drawn during a test, and what is in a PNG file."""

import struct

from matplotlib.figure import Figure


def record_figures(monkeypatch, module):
    """Return a list that takes the figures which a module makes from now on."""
    drawn = []

    def record(*arguments, **keywords):
        drawn.append(Figure(*arguments, **keywords))
        return drawn[-1]

    monkeypatch.setattr(module, "Figure", record)
    return drawn


def chunks(path):
    """The kinds of a file's chunks."""
    data = path.read_bytes()
    kinds, position = set(), 8
    while position < len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        kinds.add(kind)
        position += size + 12
    return kinds
