"""What the code of a function reads: the names of globals and of attributes."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType

_READ_ATTRIBUTE = frozenset({'LOAD_ATTR', 'LOAD_METHOD', 'LOAD_SUPER_ATTR'})
_READ_GLOBAL = frozenset({'LOAD_GLOBAL'})
_OTHER = ('FORMAT_', 'CONVERT_VALUE', 'BUILD_STRING', 'MATCH_', 'SETUP_', 'LOAD_BUILD_CLASS')
"""How instructions begin that make texts or classes, match patterns or catch errors."""
_WRITES_ITEM = ('STORE_SUBSCR', 'STORE_SLICE', 'DELETE_SUBSCR')
_OWN_CLASS = '__class__'


@dataclass(frozen=True)
class CodeReads:
    """What a function reads, with the functions that it defines.

    Attributes:
        names: the names of globals.
        attributes: the names of attributes, of whatever objects.
        writes_items: whether it sets or deletes items, as in ``values[0] = x``.
    """

    names: frozenset[str]
    attributes: frozenset[str]
    writes_items: bool


@lru_cache(4096)
def find_reads(code: CodeType) -> CodeReads | None:
    """Return what code reads; None if it does anything besides computing and calling functions.

    Such code sets attributes, imports, catches errors, makes texts of values, or reads variables of
    a function around it.

    >>> def forward(self, x):
    ...     return torch.cat([self.first(x), self.second(x)], 1)
    >>> found = find_reads(forward.__code__)
    >>> sorted(found.names), sorted(found.attributes)
    (['torch'], ['cat', 'first', 'second'])
    >>> find_reads((lambda self, x: f'{x}').__code__) is None
    True
    """
    if not set(code.co_freevars) <= {_OWN_CLASS}:
        return None
    names: set[str] = set()
    attributes: set[str] = set()
    writes_items = False
    for part in _parts_of(code):
        if getattr(part, 'co_exceptiontable', b''):  # before Python 3.11, an instruction
            return None
        for step in dis.get_instructions(part):
            if step.opname in _READ_ATTRIBUTE:
                attributes.add(step.argval)
            elif step.opname in _READ_GLOBAL:
                names.add(step.argval)
            elif step.opcode in dis.hasname or step.opname.startswith(_OTHER) or _formats(step):
                return None
            elif step.opname.startswith(_WRITES_ITEM):
                writes_items = True
    return CodeReads(frozenset(names), frozenset(attributes), writes_items)


def _formats(step: dis.Instruction) -> bool:
    """Return whether an instruction may make a text of a value, as ``'%s' % x`` does."""
    return step.opname == 'BINARY_MODULO' or (step.opname == 'BINARY_OP' and '%' in step.argrepr)


def _parts_of(code: CodeType) -> Iterator[CodeType]:
    """Yield code and that of the functions in it, which read no variables but those of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts_of(constant)
