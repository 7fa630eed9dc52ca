"""Count kernel launches, memory traffic and collectives of an optimized HLO module.

A launch is an instruction outside of fused computations that does work on the device. Loops count
as often as XLA knows that they run, and conditionals as their largest branch. Traffic is the bytes
that launches read and write. Slices of an operand, and updates in place, count with their own size.
Caches and padding are ignored, so the figures are not measurements.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from jmarl.forecast.hlo import Instruction, Module, is_scope_of


NO_LAUNCH = frozenset(
    (
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "add-dependency",
        "opt-barrier",
        "partition-id",
        "replica-id",
        "while",
        "conditional",
        "call",
        "domain",
    )
)
NO_CALL = ("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast")
"""Targets of custom calls that only inform the compiler."""
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective")
"""Start of the names of collectives."""
SLICES = ("dynamic-slice", "slice", "gather")
IN_PLACE = ("dynamic-update-slice", "scatter")
"""Instructions that change a part of their first operand."""
BRANCHES = ("call", "conditional", "async-start")
"""Instructions that run one of the computations that they call."""
BUFFERS = ("parameter", "custom-call")
"""Values that a fusion updates in place: an operand, and for a TPU a new buffer."""
Computation = Mapping[str, Instruction]


class Work(NamedTuple):
    """Work of a part of a program."""

    launches: float = 0
    nbytes: float = 0
    """Bytes read and written."""
    collectives: float = 0
    """Number of collectives."""
    collective_bytes: float = 0

    def plus(self, other: Work, times: float = 1) -> Work:
        """Return the sum with some repetitions of other work."""
        pairs = zip(self, other, strict=True)
        return Work(*(x + times * y for x, y in pairs))


class Loop(NamedTuple):
    """A loop, or the whole program with one iteration."""

    path: str
    """Path of JAX's transformations and scopes."""
    trips: int | None
    """Iterations; None if XLA does not know them."""
    inline: Work
    """Work of one iteration without inner loops."""
    loops: tuple[Loop, ...]
    computations: tuple[str, ...] = ()
    """Names of the computations of ``inline``: the loop's own and those that it calls."""
    line: str = ""
    """Line of code that the loop comes from."""

    @property
    def times(self) -> int:
        """Iterations; 1 if XLA does not know them."""
        return 1 if self.trips is None else self.trips

    @property
    def iteration(self) -> Work:
        """Work of one iteration. Inner loops of unknown length count once."""
        total = self.inline
        for loop in self.loops:
            total = total.plus(loop.iteration, loop.times)
        return total


class Repetition(NamedTuple):
    """Kernels that a loop launches in each iteration, without those of inner loops."""

    trips: tuple[int, ...]
    """Iterations of the loops around it, from the outermost, and its own."""
    launches: float
    line: str
    """Line of code that the loop comes from."""

    @property
    def total(self) -> float:
        """Kernels of all iterations."""
        return math.prod(self.trips) * self.launches


def count(module: Module) -> Loop:
    """Return the tree of loops of a module, with the work of each."""
    return _loop(module, module.entry, "", 1)


def _loop(module: Module, name: str, path: str, trips: int | None) -> Loop:
    inline, loops, names = Work(), [], [name]
    computation = module.computations[name]
    for each in computation.values():
        if each.opcode == "while":
            (body,) = each.called["body"]
            loop = _loop(module, body, each.op_name, _trips(module, each))
            loops.append(loop._replace(line=module.lines.get(each.frame, "")))
        elif each.opcode in BRANCHES:
            inner = _largest(module, each)
            inline = inline.plus(inner.inline)
            loops.extend(inner.loops)
            names.extend(inner.computations)
        elif is_launch(each):
            inline = inline.plus(_work(module, computation, each))
    return Loop(path, trips, inline, tuple(loops), tuple(names))


def _trips(module: Module, loop: Instruction) -> int | None:
    """Return the length of a loop; None if XLA does not know it.

    For a TPU, it is the constant that the condition compares the counter with. Loops of JAX count
    from 0 in steps of 1.
    """
    if loop.trips is not None:
        return loop.trips
    (condition,) = loop.called["condition"]
    instructions = module.computations[condition]
    root = next(each for each in instructions.values() if each.is_root)
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    bound = instructions[root.operands[1]]
    return int(bound.literal) if bound.opcode == "constant" else None


def _largest(module: Module, each: Instruction) -> Loop:
    """Return the branch of a conditional, or the called computation, with the most launches."""
    names = (name for called in each.called.values() for name in called)
    branches = [_loop(module, name, each.op_name, 1) for name in names]
    return max(branches, key=lambda branch: branch.iteration.launches)


def is_launch(each: Instruction) -> bool:
    """Return True if an instruction is work of the device. A pair of start and done is one."""
    if each.opcode == "custom-call":
        return not any(f'"{name}"' in each.attributes for name in NO_CALL)
    is_continued = each.opcode.endswith(("-done", "-update"))
    return each.opcode not in NO_LAUNCH and not is_continued


def _work(module: Module, computation: Computation, each: Instruction) -> Work:
    if each.opcode.startswith(COLLECTIVES):
        return Work(1, 0, 1, _result_bytes(computation, each))
    return Work(1, traffic(module, computation, each))


def traffic(module: Module, computation: Computation, each: Instruction) -> int:
    """Return the bytes that an instruction reads and writes.

    Args:
        module: The module.
        computation: The computation of the instruction.
        each: The instruction.
    """
    sizes = [computation[name].nbytes for name in each.operands]
    opcode, result = (
        each.opcode.removesuffix("-start"),
        _result_bytes(computation, each),
    )
    if opcode in IN_PLACE:
        return sum(sizes[1:]) + _update_bytes(computation, each)
    if opcode in SLICES:
        return 2 * result
    if opcode != "fusion":
        return result + sum(sizes)
    (name,) = each.called["calls"]
    return _fused_traffic(module.computations[name], sizes)


def _result_bytes(computation: Computation, each: Instruction) -> int:
    """Return the bytes of a result.

    The result of a start is that of its end, because its own tuple also has the operands. Products
    of cuBLAS have a second result, their scratch memory, which does not count.
    """
    if each.opcode == "custom-call" and '"__cublas' in each.attributes:
        return each.shapes[0].nbytes
    if not each.opcode.endswith("-start"):
        return each.nbytes
    users = (x for x in computation.values() if each.name in x.operands)
    return next((x for x in users if x.opcode.endswith("-done")), each).nbytes


def _update_bytes(computation: Computation, each: Instruction) -> int:
    """Return the bytes that an update in place writes.

    A scatter of n arrays has their n updates at the end of its operands.
    """
    names = each.operands[1:2]
    if each.opcode == "scatter":
        names = each.operands[len(each.operands) // 2 + 1 :]
    return sum(computation[name].nbytes for name in names)


def _fused_traffic(fused: Computation, sizes: list[int]) -> int:
    parameters = (x for x in fused.values() if x.opcode == "parameter")
    reads = sum(
        _read_bytes(fused, parameter.name, sizes[int(parameter.literal)])
        for parameter in parameters
    )
    roots = [x for x in fused.values() if x.is_root]
    return reads + sum(_written_bytes(fused, root) for root in roots)


def _read_bytes(fused: Computation, name: str, size: int) -> int:
    """Return the bytes that a fusion reads of a parameter."""
    users = list(_users(fused, name))
    read = 0
    for user in users:
        if user.opcode in SLICES and user.operands[0] == name:
            read += user.nbytes
        elif user.opcode in IN_PLACE and user.operands[0] == name:
            continue
        else:
            return size
    return min(read, size)


def _users(fused: Computation, name: str) -> Iterator[Instruction]:
    """Yield the users of a value, with its name among their operands, seen through bitcasts."""
    for each in fused.values():
        if name in each.operands and each.opcode != "bitcast":
            yield each
        elif name in each.operands:
            for user in _users(fused, each.name):
                operands = (name if x == each.name else x for x in user.operands)
                yield user._replace(operands=tuple(operands))


def _written_bytes(fused: Computation, root: Instruction) -> int:
    """Return the bytes of a fusion's result that it writes."""
    if root.opcode == "tuple":
        parts: Iterable[Instruction] = (fused[name] for name in root.operands)
        return sum(_written_bytes(fused, part) for part in parts)
    root = _source(fused, root)
    if root.opcode not in IN_PLACE:
        return root.nbytes
    updated = _source(fused, fused[root.operands[0]])
    is_in_place = updated.opcode in BUFFERS
    return _update_bytes(fused, root) if is_in_place else root.nbytes


def _source(fused: Computation, each: Instruction) -> Instruction:
    """Return the instruction behind bitcasts."""
    while each.opcode == "bitcast":
        each = fused[each.operands[0]]
    return each


def find(loop: Loop, scope: str) -> Loop | None:
    """Return the loop directly in a scope, of any depth; of several, the one with most launches.

    The loops that it runs are not directly in the scope.
    """
    found = list(_directly_in(loop, scope))
    return max(found, key=lambda x: x.times * x.iteration.launches, default=None)


def _directly_in(loop: Loop, scope: str) -> Iterator[Loop]:
    for inner in loop.loops:
        if is_scope_of(inner.path, scope):
            yield inner
        else:
            yield from _directly_in(inner, scope)


def unknown(loop: Loop) -> Iterator[Loop]:
    """Yield the inner loops whose length XLA does not know."""
    for inner in loop.loops:
        if inner.trips is None:
            yield inner
        yield from unknown(inner)


def repetitions(
    loop: Loop, skipped: Loop | None = None, trips: tuple[int, ...] = ()
) -> Iterator[Repetition]:
    """Yield what the inner loops of a loop repeat. A loop of unknown length counts once.

    Args:
        loop: The loop around them.
        skipped: Inner loop to leave out, with those that it runs.
        trips: Iterations of the loops around it that count.
    """
    for inner in loop.loops:
        if inner is not skipped:
            times = (*trips, inner.times)
            yield Repetition(times, inner.inline.launches, inner.line)
            yield from repetitions(inner, skipped, times)


def launches_by_file(module: Module) -> Counter[str]:
    """Return the launches of a module by the file of code that they come from."""
    return _launches_by_file(module, count(module))


def _launches_by_file(module: Module, loop: Loop) -> Counter[str]:
    """Return the launches of one iteration of a loop."""
    total: Counter[str] = Counter()
    for name in loop.computations:
        launches = filter(is_launch, module.computations[name].values())
        lines = (module.lines.get(each.frame, "") for each in launches)
        total.update(line.partition(":")[0] for line in lines)
    for inner in loop.loops:
        for file, number in _launches_by_file(module, inner).items():
            total[file] += inner.times * number
    return total


def largest_arrays(module: Module, count: int = 5) -> list[tuple[int, str, str]]:
    """Return bytes, type with sizes, and line of code of the largest results of launches.

    Results of equal size from the same line are listed once.

    Args:
        module: The module.
        count: Number of arrays.
    """
    found: dict[tuple[int, str, str], None] = {}
    for name in _executed(module, module.entry):
        for each in module.computations[name].values():
            for shape in each.shapes if is_launch(each) else ():
                sizes = ",".join(map(str, shape.sizes))
                line = module.lines.get(each.frame, "")
                found[shape.nbytes, f"{shape.dtype}[{sizes}]", line] = None
    return sorted(found, key=lambda entry: -entry[0])[:count]


def _executed(module: Module, name: str) -> Iterator[str]:
    """Yield the computations that are not fused: the given one and those that it runs."""
    yield name
    for each in module.computations[name].values():
        if not is_launch(each) and each.called:
            for inner in (n for called in each.called.values() for n in called):
                yield from _executed(module, inner)
