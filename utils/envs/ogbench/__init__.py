"""OGBench's single-task environments and their datasets."""
