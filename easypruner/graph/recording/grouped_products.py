"""Grouped matrix products, as of a mixture of experts, in any precision and for any widths.

Torch's kernels demand that rows start at multiples of 16 bytes, which a trial of a cut, or a
comparison in double precision, need not fulfil.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_GROUPED = getattr(torch.ops.aten, '_grouped_mm', None)


def is_grouped_product(func: Any) -> bool:
    """Return whether an operation multiplies groups of rows, or columns, with a matrix each."""
    return _GROUPED is not None and getattr(func, 'overloadpacket', None) is _GROUPED


def multiply_groups(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the product of two matrices of which one, or both, are a stack or have groups.

    Args:
        a: a stack of matrices, or a matrix. If ``b`` is a stack, its rows come in groups; else its
            columns.
        b: likewise; if ``a`` is a stack, the columns of ``b`` come in groups; else its rows.
        offs: where each group ends.
        bias: is added.
        out_dtype: the type of the result.
    """
    if offs is None:
        result = a @ b
    elif any(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in (a, b, offs)):
        stack = [offs.shape[0]] if a.dim() == b.dim() == 2 else []
        result = a.new_empty([*stack, a.shape[-2], b.shape[-1]])
    else:
        ends = offs.tolist()
        spans = list(zip([0, *ends], ends, strict=False))
        if a.dim() == b.dim() == 2:
            result = torch.stack([a[:, start:end] @ b[start:end] for start, end in spans])
        elif b.dim() == 3:
            result = a.new_zeros([a.shape[0], b.shape[2]])
            for matrix, (start, end) in zip(b, spans, strict=True):
                result[start:end] = a[start:end] @ matrix
        else:
            result = a.new_zeros([a.shape[1], b.shape[1]])
            for matrix, (start, end) in zip(a, spans, strict=True):
                result[:, start:end] = matrix @ b[:, start:end]
    if bias is not None:
        result = result + bias
    return result if out_dtype is None else result.to(out_dtype)
