"""Reasons: why torch.export or an exporter refuses a network, in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import nn

from easypruner.base.user_code import user_line

_LINES = 3
"""The number of lines of torch's reason that a message shows."""
_NOISE = re.compile(
    r'TORCH_LOGS|TORCHDYNAMO|consider using data-dependent|^Caused by|draft_export|docs\.google'
)
"""Lines for those who work on torch."""

_SIZE = re.compile(r'L(\[[^]]*\])+\.size\(\)\[0\]')
"""The size of the batch in a message."""
_VALUES = r'Could not guard on data-dependent expression|Could not extract specialized integer'

_PLAIN: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        _VALUES,
        lambda match: (
            'the forward decides by the values of a tensor, which are not known in an export; '
            'let it compute the same for all values, for example by torch.where'
        ),
    ),
    (
        r'specialized it to be a constant',
        lambda match: (
            'the forward fixes it, for example by a loop over the samples or a number in a view'
        ),
    ),
    (
        r'satisfy the generated guard (.+?)\.?$',
        lambda match: (
            'the forward does not compute the same for all sizes, but where '
            + _SIZE.sub('batch', match[1])
        ),
    ),
    (
        r'__obj_flatten__',
        lambda match: 'its weights are in a packed form, which torch.export does not take',
    ),
    (
        r"No ONNX function found for <OpOverload\(op='([\w.]+)'",
        lambda match: f'ONNX has no operation for {match[1].replace(".", "::")}',
    ),
)
"""What a message of torch contains -> the same in plain words."""


def reason_of(error: BaseException, network: nn.Module, caller: str = '') -> str:
    """Return why an exporter refuses a network: the first cause, and the line of the forward.

    Args:
        error: the error of the exporter.
        network: the network.
        caller: the file that calls the forward; '' if the error is not raised in it.
    """
    line = user_line(error.__traceback__, caller) if caller else ''
    while error.__cause__ is not None:
        error = error.__cause__
    found = next((plain(m) for pattern, plain in _PLAIN if (m := _search(pattern, error))), None)
    text = first_lines(error) if found is None else found
    return f'{text}{f" ({line})" if line else ""}{_advise_parts(network)}'


def needs_values(error: BaseException) -> bool:
    """Return whether torch.export fails because a forward decides by the values of a tensor."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _search(_VALUES, error) is not None


def first_lines(error: BaseException | str) -> str:
    """Return the first lines of a message that say something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not _NOISE.search(line)] or lines
    return ' '.join(said[:_LINES]) or type(error).__name__


def _search(pattern: str, error: BaseException) -> re.Match[str] | None:
    return re.search(pattern, str(error), re.MULTILINE)


def _advise_parts(network: nn.Module) -> str:
    """Return what to do about parts that no exporter takes; '' if there are none."""
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            return f'; {path} is a TorchScript module: use the module from which it was made'
        if type(module).__module__.startswith(('torch.ao.nn.quantized', 'torch.nn.quantized')):
            return f'; {path} is quantized by torch.ao: export the network before it is converted'
    return ''
