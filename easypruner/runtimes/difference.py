"""Difference: how far an output of a runtime is from that of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""The largest difference from torch, relative to the largest value of an output."""
_HALF_TOLERANCE = 2e-2


def tolerance_of(expected: Iterable[Tensor]) -> float:
    """Return the largest relative difference of outputs that rounding explains."""
    half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in expected)
    return _HALF_TOLERANCE if half else TOLERANCE


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest value; infinity for NaN.

    Infinite values, such as scores of what is masked, have to be the same.
    """
    one, other = _numbers(got), _numbers(expected)
    if one.shape != other.shape:
        return math.inf
    finite = torch.isfinite(other)
    if not torch.equal(one[~finite], other[~finite]):
        return math.inf
    one, other = one[finite], other[finite]
    if not other.numel():
        return 0.0
    largest = float((one - other).abs().max()) / (float(other.abs().max()) or 1.0)
    return largest if math.isfinite(largest) else math.inf


def _numbers(tensor: Tensor) -> Tensor:
    """Return real numbers in double precision."""
    tensor = tensor.detach().cpu()
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()
