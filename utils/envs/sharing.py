"""One MuJoCo model for several environments of a process.

A model is constant but for a few small arrays, in which an environment keeps what it draws at a
reset or shows in a colour. So environments can use one model in turn, each with its own values of
those.
"""

import contextlib
import contextvars
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

_shared: contextvars.ContextVar[dict[Hashable, Any] | None] = contextvars.ContextVar(
    "shared", default=None
)


@contextlib.contextmanager
def shared_models() -> Iterator[None]:
    """Have environments that are made meanwhile share their models.

    They may be used afterwards too, by one thread in all. Their episodes are those of environments
    that share nothing. It is not the default, because environments of several threads, or one whose
    model is written to from outside, would disturb each other.
    """
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def is_sharing() -> bool:
    """Return whether environments that are made now share their models."""
    return _shared.get() is not None


def once(key: Hashable, make: Callable[[], Any]) -> Any:
    """Return what `make` returns; within `shared_models`, what it did for this key before."""
    made = _shared.get()
    if made is None:
        return make()
    if key not in made:
        made[key] = make()
    return made[key]


class Turns:
    """Whose values a model has in the arrays that environments write to.

    Args:
        fields: Those arrays of the model, as views. Every environment begins with what they hold
            now.
    """

    def __init__(self, fields: Sequence[np.ndarray]):
        self._fields = fields
        self._first = self._copies()
        self._values: weakref.WeakKeyDictionary[Any, list[np.ndarray]] = weakref.WeakKeyDictionary()
        self._present: Callable[[], Any] = lambda: None

    def take(self, env: Any) -> None:
        """Give the model the values of an environment, and keep those of the one before."""
        present = self._present()
        if env is present:
            return
        if present is not None:
            self._values[present] = self._copies()
        for field, value in zip(self._fields, self._values.get(env, self._first), strict=True):
            field[...] = value
        self._present = weakref.ref(env)

    def _copies(self) -> list[np.ndarray]:
        return [field.copy() for field in self._fields]
