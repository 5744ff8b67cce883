"""Threads of this process: several for independent parts, one inside each part."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property:
        """`functools.cached_property` without its lock, which before Python 3.12 is one for all instances of a class:
        threads would compute one at a time. Two that need the same value at the same time both compute it.
        """

        def __init__(self, function):
            self._function, self.__doc__ = function, function.__doc__

        def __set_name__(self, owner, name):
            self._name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._function(instance)
            return value


def one_thread() -> Any:
    """A context in which linear algebra takes one thread.

    Small matrices gain nothing from more, which wait for each other, and much longer if another process is busy.
    """
    # Loaded first: a library that is loaded later would not be limited. scipy has one of its own.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], at_most: int | None = None
) -> Iterator[Result]:
    """The results of a function in order, one thread per processor, or `at_most` so many."""
    n = os.cpu_count() or 1
    with ThreadPoolExecutor(min(n, at_most or n)) as pool:
        yield from pool.map(function, items)
