"""Remembered outputs on the meta device equal those of torch's own kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easypruner.graph.recording.meta_shapes import run_operation, tensors_of

aten = torch.ops.aten
dtypes = st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool])
numbers = st.sampled_from([1, 1.0, True, 2])


def meta(shape: list[int], order: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor whose dimensions lie in memory in another order."""
    tensor = torch.empty([shape[i] for i in order], dtype=dtype, device='meta')
    return tensor.permute([order.index(i) for i in range(len(shape))])


def describe(result: Any) -> list[tuple[Any, ...]]:
    return [(t.shape, strides(t), t.dtype, t.device.type) for t in tensors_of((result,))]


def strides(tensor: Tensor) -> list[int]:
    """Return the strides that matter: a dimension of one index may have any."""
    return [s for size, s in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def same(func: Any, *args: Any, **kwargs: Any) -> None:
    """Run an operation twice, so that it can be remembered, and compare with its kernel."""
    expected = describe(func(*args, **kwargs))
    for _ in range(2):
        result = run_operation(func, args, kwargs)
        assert describe(result if isinstance(result, Tensor) else tuple(result)) == expected


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=4), dtypes, dtypes, numbers)
def test_outputs_are_those_of_the_kernel(
    data: st.DataObject, shape: list[int], one: torch.dtype, other: torch.dtype, number: Any
) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    a, b = meta(shape, order, one), meta(shape, order[::-1], other)
    dim = data.draw(st.integers(0, len(shape) - 1))
    same(aten.mul.Tensor, a, b)
    same(aten.mul.Tensor, a, number)
    same(aten.div.Tensor, a, b)
    same(aten.ne.Scalar, a, number)
    same(aten.where.self, meta(shape, order, torch.bool), a, b)
    same(aten.sum.dim_IntList, a, [dim], keepdim=data.draw(st.booleans()))
    same(aten.masked_fill.Scalar, b, meta(shape, order, torch.bool), number)
    same(aten.stack.default, [b, b], dim)
    if one.is_floating_point:
        same(aten.linalg_vector_norm.default, a, data.draw(st.sampled_from([1, 2.0])), [dim])
    same(aten.arange.default, number, device=torch.device('meta'))


def test_the_default_dtype_counts() -> None:
    whole = torch.empty(2, 3, dtype=torch.int64, device='meta')
    assert run_operation(aten.true_divide.Tensor, (whole, whole), {}).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert run_operation(aten.true_divide.Tensor, (whole, whole), {}).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_single_numbers_are_weaker_than_tensors() -> None:
    tensor = torch.empty(2, dtype=torch.float16, device='meta')
    same(aten.mul.Tensor, tensor, torch.empty((), dtype=torch.float64, device='meta'))
    same(aten.mul.Tensor, tensor, torch.empty((1,), dtype=torch.float64, device='meta'))


@pytest.mark.parametrize(
    ('func', 'args'),
    [(aten.view.default, ([6],)), (aten.split.Tensor, (1,)), (aten.relu_.default, ())],
)
def test_outputs_that_share_memory_go_on_sharing_it(func: Any, args: tuple[Any, ...]) -> None:
    tensor = torch.empty(2, 3)
    for _ in range(2):
        for output in tensors_of((run_operation(func, (tensor, *args), {}),)):
            assert output.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    stand_in = torch.empty(2, 3, device='meta')
    for _ in range(2):
        for output in tensors_of((run_operation(func, (stand_in, *args), {}),)):
            assert output is stand_in or output._base is stand_in
