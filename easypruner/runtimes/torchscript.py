"""TorchScript: networks are traced for the converters that read it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.errors import EasyPrunerError
from easypruner.runtimes.program import quiet
from easypruner.runtimes.reasons import first_lines, needs_values, reason_of

_WORD = re.compile(r'\W', re.ASCII)
_FIXED = re.compile(r'Converting a tensor to a Python (boolean|integer|float|number|index)')


def trace_network(network: nn.Module, tensors: Sequence[Tensor], file: Path) -> Any:
    """Trace a network by ``torch.jit.trace``, and save what was traced.

    Args:
        network: takes tensors, and returns tensors; in evaluation mode.
        tensors: its example inputs.
        file: the file to write.

    Raises:
        EasyPrunerError: torch cannot trace the network, or its forward decides by the values of
            tensors, so that the trace would hold for the example inputs alone.
    """
    trace: Any = torch.jit.trace
    try:
        with quiet(), torch.no_grad(), _plain_names(network):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter('always')
                traced = trace(network, tuple(tensors), check_trace=False)
            traced.save(str(file))
    except Exception as error:  # torch.jit raises errors of many classes
        raise EasyPrunerError(
            f'torch.jit cannot trace the network: {first_lines(error)}'
        ) from error
    if any(_FIXED.search(str(warning.message)) for warning in said):
        _check_decisions(network, tensors)
    return traced


def _check_decisions(network: nn.Module, tensors: Sequence[Tensor]) -> None:
    """Raise EasyPrunerError if a forward decides by values; to decide by shapes is allowed."""
    try:
        with quiet(), torch.no_grad():
            torch.export.export(network, tuple(tensors), strict=False)
    except Exception as error:  # torch.export raises errors of many classes
        if needs_values(error):
            raise EasyPrunerError(
                f'torch.jit cannot trace the network: {reason_of(error, network, __file__)}'
            ) from error


@contextmanager
def _plain_names(network: nn.Module) -> Iterator[None]:
    """Give the classes of modules names that TorchScript can read again, for a block.

    It writes the name of the file of a class as that of a module of Python, which is a word in its
    own language. A class in a file that was loaded by its path may have any name.
    """
    kinds = {*map(type, network.modules())}
    before = [(kind, kind.__module__, kind.__name__) for kind in kinds if not _is_plain(kind)]
    try:
        for kind, module, name in before:
            kind.__module__ = '.'.join(map(_word, module.split('.')))
            kind.__name__ = _word(name)
        yield
    finally:
        for kind, module, name in before:
            kind.__module__, kind.__name__ = module, name


def _is_plain(kind: type[nn.Module]) -> bool:
    name = f'{kind.__module__}.{kind.__name__}'
    return name.isascii() and all(part.isidentifier() for part in name.split('.'))


def _word(part: str) -> str:
    found = _WORD.sub('_', part)
    return found if found[:1].isalpha() else f'm{found}'
