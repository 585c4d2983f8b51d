"""Collection of OGBench's datasets on this machine, with its own oracles."""
