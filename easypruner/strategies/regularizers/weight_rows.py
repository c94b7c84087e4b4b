"""Weight rows: sums of squares of weights, and products with factors of two of their dimensions.

A weight whose units lie in both of its first dimensions is needed twice. It is processed in pieces
that stay in the cache in between, so that the memory is read and written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_PIECE = 1 << 17
"""The number of elements of a piece for each thread. A weight and its gradient fit into 1 MiB, a
usual cache of a core."""
_EXACT = (torch.float32, torch.float64)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

Factors = Sequence[tuple[int, Tensor]]
"""(dimension, a factor for each of its indices)."""


class WeightRows(NamedTuple):
    """A tensor as a matrix whose rows are the indices of dimension 0.

    Attributes:
        matrix: a view of the tensor, in the order of its memory.
        inner: the shape of the columns: dimension 1, and all behind it as one.
        axis: which of the two is dimension 1; the other one comes first in channels last.
    """

    matrix: Tensor
    inner: tuple[int, int]
    axis: int

    @classmethod
    def of(cls, tensor: Tensor) -> WeightRows | None:
        """Return a tensor as rows; None if its memory is in another order."""
        if tensor.dim() < 2 or not tensor.numel():
            return None
        rows, columns = tensor.shape[:2]
        if tensor.is_contiguous():
            return cls(tensor.view(rows, -1), (columns, tensor.numel() // rows // columns), 0)
        last = _CHANNELS_LAST.get(tensor.dim())
        if last is None or not tensor.is_contiguous(memory_format=last):
            return None
        matrix = tensor.movedim(1, -1).view(rows, -1)
        return cls(matrix, (matrix.shape[1] // columns, columns), 1)

    @property
    def layout(self) -> tuple[torch.Size, tuple[int, int], int]:
        """What tensors have in common that have the same index at the same place of the matrix."""
        return self.matrix.shape, self.inner, self.axis

    @property
    def piece_size(self) -> int:
        """The largest number of elements of a piece."""
        size, width = self.matrix.numel(), self.matrix.shape[1]
        piece = _PIECE * torch.get_num_threads()
        return max(piece // width, 1) * width if size > piece and self.matrix.is_cpu else size

    def pieces(self, matrix: Tensor) -> Sequence[Tensor]:
        """Return a matrix with the same number of rows in pieces."""
        size = self.piece_size
        if size == self.matrix.numel():
            return (matrix,)
        parts: Sequence[Tensor] = torch.split(matrix, size // self.matrix.shape[1])
        return parts

    def square_sums(self, buffer: Tensor, dims: Sequence[int]) -> list[Tensor]:
        """Return the sums of squares for each index of dimensions: of 0, of 1, or of both.

        Args:
            buffer: memory for the squares of a piece.
            dims: the dimensions.
        """
        rows: list[Tensor] = []
        columns: Tensor | None = None
        whole = buffer[: self.piece_size].view(-1, self.matrix.shape[1])
        for piece in self.pieces(self.matrix):
            squares = torch.mul(piece, piece, out=whole[: len(piece)])
            if 0 in dims:
                rows.append(squares.sum(1))
            if 1 in dims:
                sums = squares.sum(0)
                columns = sums if columns is None else columns.add_(sums)
        if columns is not None and self.inner[1 - self.axis] > 1:
            columns = columns.view(self.inner).sum(1 - self.axis)
        along = {} if columns is None else {1: columns}
        return [torch.cat(rows) if dim == 0 else along[dim] for dim in dims]

    def factors_at(self, dim: int, values: Tensor) -> Tensor:
        """Return factors of dimension 0 or 1 in a shape that broadcasts to the matrix."""
        if dim == 0:
            return values[:, None]
        others = self.inner[1 - self.axis]
        if others == 1:
            return values
        return values.repeat(others) if self.axis else values.repeat_interleave(others)


def square_sums(weights: Sequence[tuple[Tensor, Sequence[int]]]) -> list[list[Tensor]]:
    """Return for each tensor the sums of squares for each index of some of its dimensions.

    There is no gradient. A tensor is read once.

    Args:
        weights: tensors, each with dimensions.
    """
    vectors = [tensor for tensor, _ in weights if tensor.dim() == 1]
    squares = iter(torch._foreach_mul(vectors, vectors) if vectors else ())
    found: list[list[Tensor]] = []
    buffers: dict[tuple[torch.dtype, torch.device], Tensor] = {}
    for tensor, dims in weights:
        # Along rows alone, a norm is faster.
        in_pieces = {*dims} in ({1}, {0, 1}) and tensor.dtype in _EXACT
        rows = WeightRows.of(tensor) if in_pieces else None
        if tensor.dim() == 1:
            found.append([next(squares)] * len(dims))
        elif rows is None:
            found.append([square_sums_of(tensor, dim) for dim in dims])
        else:
            key = tensor.dtype, tensor.device
            if key not in buffers or buffers[key].numel() < rows.piece_size:
                buffers[key] = tensor.new_empty(rows.piece_size)
            found.append(rows.square_sums(buffers[key], dims))
    return found


def square_sums_of(tensor: Tensor, dim: int) -> Tensor:
    """Return the sums of squares for each index of a dimension, with a gradient."""
    if dim == 1 and tensor.dim() > 1 and tensor.is_contiguous():
        # Sum over whole rows first, which is several times faster than other orders.
        within = tensor.flatten(1).square().sum(dim=0)
        return within.view(tensor.shape[1], -1).sum(dim=1)
    others = [d for d in range(tensor.dim()) if d != dim]
    return torch.linalg.vector_norm(tensor, dim=others).square() if others else tensor.square()


def with_factors(factors: Factors, *tensors: Tensor) -> tuple[list[Tensor], ...]:
    """Return factors, and for each tensor its parts that are to be multiplied with them, in order.

    Args:
        factors: the factors of one or several dimensions; each is to be applied.
        *tensors: tensors of the same shape.
    """
    first = tensors[0]
    if first.dim() == 1 and len(factors) == 1:
        return [factors[0][1]], *([own] for own in tensors)
    rows = [WeightRows.of(own) for own in tensors] if len(factors) > 1 else [None]
    lead = rows[0]
    alike = lead is not None and all(r is not None and r.layout == lead.layout for r in rows)
    if lead is None or not alike or any(dim > 1 for dim, _ in factors):
        spread = [_broadcast(values, first, dim) for dim, values in factors]
        return spread, *([own] * len(factors) for own in tensors)
    parts = [lead.pieces(own.matrix) for own in rows if own is not None]
    count = len(parts[0])
    of_dims = [
        lead.pieces(values) if dim == 0 else [values] * count
        for dim, values in ((dim, lead.factors_at(dim, values)) for dim, values in factors)
    ]
    # A piece takes all factors before the next one is read.
    ordered = [values for own in zip(*of_dims, strict=True) for values in own]
    return ordered, *([piece for piece in own for _ in factors] for own in parts)


def _broadcast(values: Tensor, tensor: Tensor, dim: int) -> Tensor:
    """Return values for the indices of a dimension in a shape that broadcasts to the tensor."""
    rows = values.view([-1 if d == dim else 1 for d in range(tensor.dim())])
    if dim == 0:
        return rows
    # Expanded to the last dimension, so that the inner loop runs over whole rows.
    return rows.expand([*rows.shape[:dim], *tensor.shape[dim:]]).contiguous()
