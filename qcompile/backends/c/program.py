"""The C program before it is text: kernels, constant tables and steps."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompile.backends.c.levels import Family, Level
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
        level: the instruction set it is compiled for; None for portable C.
        shared: one text serves all levels: a type, or a scalar function that compilers inline.
    """

    template: str
    function: str
    settings: tuple[tuple[str, Setting], ...] = ()
    requires: tuple[Kernel, ...] = ()
    needs_math: bool = False
    level: Level | None = None
    shared: bool = False

    def at(self, level: Level | None) -> Kernel:
        """The same text compiled for `level`, as a function of its own."""
        if level is None or self.level is level:
            return self
        function = f"{self.function}_{level.value.suffix}"
        return dataclasses.replace(self, function=function, level=level)


def kernel(
    template: str,
    suffix_types: Sequence[str] = (),
    /,
    requires: Sequence[Kernel] = (),
    suffix: str = "",
    needs_math: bool = False,
    shared: bool = False,
    **settings: Setting,
) -> Kernel:
    """A kernel whose function is named after its template, types and epilogue."""
    parts = [template, *(short(name) for name in suffix_types)]
    name = "_".join(parts) + suffix
    fixed = tuple(settings.items())
    return Kernel(template, name, fixed, tuple(requires), needs_math, shared=shared)


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
    family: Family | None = None

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
    place: str = ""
    """Elements from the beginning of the value on, in C."""


@dataclass(frozen=True)
class Kept:
    """Memory that a step fills in builds with taps only, where it lives to the end of the run.

    Attributes:
        name: of the local pointer, which is null in other builds.
        ctype: of its elements.
        shape: of what lies there, row-major.
        value: the tensor of the network that lies there, if it is one.
    """

    name: str
    ctype: str
    shape: tuple[int, ...]
    value: str | None = None

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * type_size(self.ctype)


ARENA_ALIGNMENT = 16
"""Bytes: what the caller's memory must be aligned to, as that of malloc is."""
WORK_ALIGNMENT = 64
"""Bytes: scratch memory of SIMD kernels begins where a cache line does."""


@dataclass
class Variant:
    """One of several ways to compute a step; its planner fills it.

    Attributes:
        level: the instruction set it needs; None for portable C, which every machine can run.
        scratch_bytes: memory it works in; the variants of a step share one region.
        note: which kernel it is, for the comment.
        follows: its calls compute the step's follower, too.
    """

    level: Level | None
    note: str = ""
    follows: bool = False
    pointers: list[str] = field(default_factory=list)
    locals: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    scratch_bytes: int = 0

    def use(self, item: Kernel) -> str:
        """Notes that the variant calls `item`; returns the function's name."""
        if item not in self.kernels:
            self.kernels.append(item)
        return item.function

    def scratch(self, ctype: str, name: str, count: int) -> str:
        """Memory of this variant only, aligned to `WORK_ALIGNMENT` (portable: to 16 bytes).

        Returns:
            The pointer's name.
        """
        alignment = WORK_ALIGNMENT if self.level is not None else 16
        start = -(-self.scratch_bytes // alignment) * alignment
        place = "work" if start == 0 else f"work + {start}"
        self.pointers.append(f"{ctype} *const {name} = ({ctype} *)(void *)({place});")
        self.scratch_bytes = start + max(1, count) * type_size(ctype)
        return name


@dataclass
class Step:
    """One operator as a block of the run function; filled by its planner.

    `before`, `calls` and `after` run on every machine, in this order. Where there are `variants`,
    the best one that the machine can run takes the place of `calls`. `opening` and `closing` are
    lines around the whole block. The output may be written over the inputs named in `in_place`.
    The kernels of `op` also compute `follower`, if there is one: another operator that reads it.
    They compute the operators `inside`, too, whose results never lie in the arena.
    Tables that are equal to those in `shared`, of another step, are not stored again.
    """

    op: Op
    prefix: str
    tables: list[Table] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    pointers: list[Pointer] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    locals: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    in_place: list[str] = field(default_factory=list)
    shared: Sequence[Table] = ()
    opening: list[str] = field(default_factory=list)
    closing: list[str] = field(default_factory=list)
    follower: Op | None = None
    inside: tuple[Op, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Every value that the step writes."""
        return self.op.outputs + (self.follower.outputs if self.follower is not None else ())

    def variant(self, level: Level | None, note: str = "") -> Variant:
        """A new way to compute this step. The portable one must be among them."""
        result = Variant(level, note)
        self.variants.append(result)
        return result

    @property
    def all_kernels(self) -> list[Kernel]:
        """The kernels of the step and of its variants."""
        return [*self.kernels, *(item for variant in self.variants for item in variant.kernels)]

    @property
    def aligns_work(self) -> bool:
        """Whether the region that the variants share begins at a cache line, for SIMD kernels."""
        return any(variant.level is not None for variant in self.variants)

    @property
    def work_bytes(self) -> int:
        """The region that the variants share, with room to align it; 0 without one."""
        needed = max((variant.scratch_bytes for variant in self.variants), default=0)
        return needed + (WORK_ALIGNMENT - ARENA_ALIGNMENT if self.aligns_work and needed else 0)

    def use(self, item: Kernel) -> str:
        """Notes that the step calls `item`; returns the function's name."""
        if item not in self.kernels:
            self.kernels.append(item)
        return item.function

    def table(
        self,
        name: str,
        ctype: str,
        values: Array | Sequence[int],
        role: Role,
        comment: str = "",
        family: Family | None = None,
    ) -> str:
        """Adds a constant array; returns its C name. Equal arrays of a step are stored once.

        Args:
            name: what is in it; the step's prefix goes before.
            ctype: of its elements.
            values: the elements.
            role: what it is for.
            comment: what the text says of it.
            family: the instruction sets whose kernels alone read it; other builds lack it.
        """
        data = np.asarray(values).reshape(-1)
        for known in (*self.tables, *self.shared):
            alike = (known.ctype, known.role) == (ctype, role) and known.family in (None, family)
            if alike and np.array_equal(known.values, data):
                return known.name
        full = f"{self.prefix}_{name}"
        self.tables.append(Table(full, ctype, data, role, comment, family))
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

    def keep(self, name: str, ctype: str, shape: Sequence[int], value: str | None = None) -> str:
        """Memory for builds with taps; returns the pointer's name, which is null in others."""
        self.kept.append(Kept(name, ctype, tuple(shape), value))
        return name

    @property
    def bytes_by_role(self) -> Mapping[Role, int]:
        """Constant bytes of this step in a portable build; descriptors count as tables."""
        total = dict.fromkeys(Role, 0)
        for table in self.tables:
            if table.family is None:
                total[table.role] += table.size
        total[Role.TABLE] += sum(shape.size for shape in self.shapes)
        return total
