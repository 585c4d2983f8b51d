"""The ant that walks in a given direction: its environment, its training, and the walker itself."""
