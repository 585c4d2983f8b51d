"""What is in a PNG file."""

import struct


def chunks(path):
    """The kinds of a file's chunks."""
    data = path.read_bytes()
    kinds, position = set(), 8
    while position < len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        kinds.add(kind)
        position += size + 12
    return kinds
