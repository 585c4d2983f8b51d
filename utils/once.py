"""Pytrees in which an array that is in several places is passed to a program once."""

import dataclasses
import functools
from typing import Any, Self

import jax


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["places", "structure"]
)
@dataclasses.dataclass(frozen=True)
class Once:
    """A pytree in which an array that is in several places is one leaf.

    A program would take it for several arrays.

    Attributes:
        arrays: The different ones.
        places: For every leaf of the tree, which of them it is.
        structure: The tree's.
    """

    arrays: tuple[Any, ...]
    places: tuple[int, ...]
    structure: Any

    @classmethod
    def of(cls, tree: Any) -> Self:
        """Return a tree so."""
        leaves, structure = jax.tree.flatten(tree)
        arrays = {id(leaf): leaf for leaf in leaves}
        numbers = {key: number for number, key in enumerate(arrays)}
        return cls(tuple(arrays.values()), tuple(numbers[id(x)] for x in leaves), structure)

    def tree(self) -> Any:
        """Return the tree."""
        return jax.tree.unflatten(self.structure, [self.arrays[place] for place in self.places])
