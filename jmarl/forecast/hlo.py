"""Read the text of an optimized HLO module: its computations, instructions and lines of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


BITS = {"pred": 8, "token": 0}
"""Bits of an element of the types without a number in their name."""
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w-]*)\(")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_OPERAND = re.compile(r"%([\w.-]+)")


class Shape(NamedTuple):
    """Type and sizes of an array."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.sizes:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, without padding."""
        digits = re.search(r"\d+", self.dtype)
        bits = int(digits[0]) if digits else BITS.get(self.dtype, 0)
        return -(-self.elements * bits // 8)


class Instruction(NamedTuple):
    """An instruction of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    """Array of the result, or those of a tuple."""
    operands: tuple[str, ...]
    """Names of the instructions whose results it reads."""
    called: dict[str, tuple[str, ...]]
    """Computations that it calls, by attribute: ``calls``, ``body``, ``branch_computations``."""
    trips: int | None
    """Iterations of a loop, if XLA knows them."""
    op_name: str
    """Path of JAX's transformations and scopes."""
    frame: int
    """Number of its stack frame; 0 if unknown."""
    is_root: bool
    literal: str
    """Text between the parentheses: the value of a constant."""
    attributes: str
    """Text behind the operands."""

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        return sum(shape.nbytes for shape in self.shapes)


@dataclass
class Module:
    """A module: computations by name, each a dictionary of instructions by name."""

    computations: dict[str, dict[str, Instruction]] = field(default_factory=dict)
    entry: str = ""
    lines: dict[int, str] = field(default_factory=dict)
    """Stack frame -> file and line of the code."""


def is_in_scope(path: str, scope: str) -> bool:
    """Return True if a path of transformations has a scope, such as ``jit(f)/vmap(scope)/add``."""
    return re.search(rf"(?:^|[/(]){re.escape(scope)}(?:$|[/)])", path) is not None


def is_scope_of(path: str, scope: str) -> bool:
    """Return True for the path of a loop directly in a scope, such as ``jit(f)/scope/while``."""
    outer, _, name = path.rpartition("/")
    is_loop = name == "while"
    return is_loop and is_in_scope(outer.rpartition("/")[2], scope)


def parse(text: str) -> Module:
    """Parse the text of an optimized module, as ``Compiled.as_text`` returns it."""
    module = Module(lines=_lines(text))
    current: dict[str, Instruction] = {}
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = module.computations.setdefault(head[2], {})
            module.entry = head[2] if head[1] else module.entry
        elif name := _NAME.match(line):
            current[name[2]] = _instruction(name, line[name.end() :])
    return module


def _instruction(name: re.Match[str], rest: str) -> Instruction:
    shape, rest = _split_shape(rest)
    opcode = _OPCODE.match(rest)
    assert opcode is not None, rest[:80]
    end = _closing(rest, opcode.end() - 1)
    operands, attributes = rest[opcode.end() : end], rest[end + 1 :]
    called = {key: (target,) for key, target in _CALLED.findall(attributes)}
    if branches := _BRANCHES.search(attributes):
        called["branch_computations"] = tuple(_OPERAND.findall(branches[1]))
    trips, path = _TRIPS.search(attributes), _OP_NAME.search(attributes)
    frame = _FRAME.search(attributes)
    return Instruction(
        name=name[2],
        opcode=opcode[1],
        shapes=tuple(parse_shapes(shape)),
        operands=tuple(_OPERAND.findall(operands)),
        called=called,
        trips=int(trips[1]) if trips else None,
        op_name=path[1] if path else "",
        frame=int(frame[1]) if frame else 0,
        is_root=bool(name[1]),
        literal=operands,
        attributes=attributes,
    )


def parse_shapes(text: str) -> Iterator[Shape]:
    """Yield the arrays in the text of a shape; a scalar has no sizes."""
    for dtype, sizes in _ARRAY.findall(text):
        numbers = re.findall(r"\d+", sizes)
        yield Shape(dtype, tuple(map(int, numbers)))


def _split_shape(text: str) -> tuple[str, str]:
    """Split the text behind ``=`` into the shape and the rest."""
    if text.startswith("("):
        end = _closing(text, 0) + 1
        return text[:end], text[end:]
    shape, _, rest = text.partition(" ")
    return shape, rest


def _closing(text: str, start: int) -> int:
    """Return the position of the parenthesis that closes the one at ``start``."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text)


def _lines(text: str) -> dict[int, str]:
    """Return file and line of each stack frame, from the tables at the start of a module."""
    files = dict(re.findall(r'^(\d+) "(.*)"$', _table(text, "FileNames"), re.M))
    location = re.compile(r"^(\d+) \{file_name_id=(\d+) .*?line=(\d+)", re.M)
    places = {
        number: f"{files.get(file, '?')}:{line}"
        for number, file, line in location.findall(_table(text, "FileLocations"))
    }
    frame = re.compile(r"^(\d+) \{file_location_id=(\d+)", re.M)
    frames = frame.findall(_table(text, "StackFrames"))
    return {int(number): places.get(place, "") for number, place in frames}


def _table(text: str, name: str) -> str:
    """Return the rows of a table, up to the next empty line."""
    _, found, rest = text.partition(f"\n{name}\n")
    return rest.partition("\n\n")[0] if found else ""
