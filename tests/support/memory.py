"""Which objects are alive."""

from __future__ import annotations

import gc
from typing import TypeVar

T = TypeVar("T")


def alive(kind: type[T]) -> list[T]:
    """Return all objects of exactly this class. A suspended coroutine may still refer to the last one that it used."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is kind]
