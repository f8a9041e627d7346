"""The C program before it is text: kernels, constant tables and steps."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompile.backends.c.names import short, type_size
from qcompile.graph import Op
from qcompile.types import Array

Setting = str | int | bool


@dataclass(frozen=True)
class Kernel:
    """One static C function: a template filled with types.

    Attributes:
        template: stem in `templates/c/kernels`.
        function: the name of this instance.
        settings: template variables.
        requires: the kernels it calls (their text comes first).
        needs_math: it calls <math.h>.
    """

    template: str
    function: str
    settings: tuple[tuple[str, Setting], ...] = ()
    requires: tuple[Kernel, ...] = ()
    needs_math: bool = False


def kernel(
    template: str,
    suffix_types: Sequence[str] = (),
    /,
    requires: Sequence[Kernel] = (),
    suffix: str = "",
    needs_math: bool = False,
    **settings: Setting,
) -> Kernel:
    """A kernel whose function is named after its template, types and epilogue."""
    parts = [template, *(short(name) for name in suffix_types)]
    name = "_".join(parts) + suffix
    return Kernel(template, name, tuple(settings.items()), tuple(requires), needs_math)


class Role(enum.Enum):
    """What a constant is for; the report adds them up separately."""

    WEIGHTS = "weights"
    EPILOGUE = "epilogue"
    TABLE = "table"


@dataclass(frozen=True)
class Table:
    """A `static const` array."""

    name: str
    ctype: str
    values: Array
    role: Role
    comment: str = ""

    @property
    def size(self) -> int:
        """Bytes in the object file."""
        return int(self.values.size) * type_size(self.ctype)


@dataclass(frozen=True)
class Shape:
    """The `static const` descriptor of one kernel call: named int32 fields or small arrays."""

    struct: str
    name: str
    fields: tuple[tuple[str, int | tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        return 4 * sum(len(v) if isinstance(v, tuple) else 1 for _, v in self.fields)


@dataclass(frozen=True)
class Pointer:
    """A local pointer of a step, to a value or to scratch memory of that step."""

    ctype: str
    name: str
    value: str | None
    scratch_bytes: int = 0
    writes: bool = False


@dataclass
class Step:
    """One operator as a block of the run function; filled by its planner."""

    op: Op
    prefix: str
    tables: list[Table] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    pointers: list[Pointer] = field(default_factory=list)
    locals: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def use(self, item: Kernel) -> str:
        """Notes that the step calls `item`; returns the function's name."""
        if item not in self.kernels:
            self.kernels.append(item)
        return item.function

    def table(
        self, name: str, ctype: str, values: Array | Sequence[int], role: Role, comment: str = ""
    ) -> str:
        """Adds a constant array; returns its C name. Equal arrays of a step are stored once."""
        data = np.asarray(values).reshape(-1)
        for known in self.tables:
            if known.ctype == ctype and known.role is role and np.array_equal(known.values, data):
                return known.name
        full = f"{self.prefix}_{name}"
        self.tables.append(Table(full, ctype, data, role, comment))
        return full

    def shape(self, struct: str, name: str, **fields: int | Sequence[int]) -> str:
        """Adds a descriptor; returns the expression that passes it."""
        plain = tuple(
            (key, value if isinstance(value, int) else tuple(value))
            for key, value in fields.items()
        )
        self.shapes.append(Shape(struct, name, plain))
        return f"&{name}"

    def scratch(self, ctype: str, name: str, count: int) -> str:
        """Memory of this step only; returns the pointer's name."""
        self.pointers.append(Pointer(ctype, name, None, max(1, count) * type_size(ctype), True))
        return name

    @property
    def bytes_by_role(self) -> Mapping[Role, int]:
        """Constant bytes of this step; descriptors count as tables."""
        total = dict.fromkeys(Role, 0)
        for table in self.tables:
            total[table.role] += table.size
        total[Role.TABLE] += sum(shape.size for shape in self.shapes)
        return total
