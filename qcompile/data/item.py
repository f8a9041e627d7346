"""One image or mask that is read when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from qcompile.types import Array, Shape

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """An image (a slice of a volume) or a mask.

    Attributes:
        name: for messages: file and place in it.
        case: what it is part of (the volume, the patient); its own name if nothing.
        shape: of what `load` returns, without a batch axis: [H, W], [H, W, C] or [C, H, W].
        is_float: whether its elements are floats; else they are uint8 (masks: integers).
        load: reads it.
    """

    name: str
    case: str
    shape: Shape
    is_float: bool
    load: Callable[[], Array]


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose elements are made each time they are asked for.

    Sent to another process it becomes a tuple of all of them.
    """

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._make(index % self._count)

    def __reduce__(self) -> tuple[type[tuple[T, ...]], tuple[list[T]]]:
        return tuple, (list(self),)

    def __iter__(self) -> Iterator[T]:
        return (self._make(index) for index in range(self._count))


class LastRead(Generic[T]):
    """Keeps what was read last: slices of one volume are asked for one after the other."""

    def __init__(self) -> None:
        self._key: object = None
        self._value: T | None = None

    def get(self, key: object, read: Callable[[], T]) -> T:
        if self._value is None or self._key != key:
            self._value = None  # so that two volumes are never held at a time
            self._value = read()
            self._key = key
        return self._value
