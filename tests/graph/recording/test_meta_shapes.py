"""Shapes of operations on the meta device equal those of torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easypruner.graph.recording import meta_shapes as shapes

aten = torch.ops.aten


def meta(*shape: int, layout: str = 'plain') -> Tensor:
    tensor = torch.empty(shape, device='meta')
    if layout == 'channels last' and len(shape) == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == 'transposed' and len(shape) > 1:
        return torch.empty(shape[::-1], device='meta').permute(*reversed(range(len(shape))))
    if layout == 'strided':
        return torch.empty((*shape[:-1], 2 * shape[-1]), device='meta')[..., ::2]
    return tensor


def describe(result: Any) -> list[tuple[Any, ...]]:
    """Return shape, dtype and strides, without strides that do not matter."""
    return [
        (
            tuple(tensor.shape),
            tensor.dtype,
            [s for size, s in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
            if tensor.numel()
            else None,
        )
        for tensor in shapes.tensors_of((result,))
    ]


def same(func: Any, *args: Any, **kwargs: Any) -> None:
    assert describe(shapes.run_operation(func, args, kwargs)) == describe(func(*args, **kwargs))


layouts = st.sampled_from(['plain', 'channels last', 'transposed', 'strided'])
sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from([aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.sub.Tensor]),
    sizes, st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 3), layouts, layouts,
)  # fmt: skip
def test_two_tensors_are_broadcast(
    func: Any, shape: list[int], single: list[bool], less: int, one: str, other: str
) -> None:
    smaller = [1 if s else size for size, s in zip(shape, single, strict=False)][less:]
    same(func, meta(*shape, layout=one), meta(*smaller, layout=other if smaller else 'plain'))


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from([aten.relu.default, aten.gelu.default, aten.sigmoid.default,
                     aten.silu.default, aten.hardswish.default, aten.neg.default]),
    sizes, layouts,
)  # fmt: skip
def test_one_tensor_keeps_its_layout(func: Any, shape: list[int], layout: str) -> None:
    same(func, meta(*shape, layout=layout))


@pytest.mark.parametrize('layout', ['plain', 'channels last', 'transposed', 'strided'])
@pytest.mark.parametrize(
    'call',
    [
        lambda x: (aten.mean.dim, x, [2, 3]),
        lambda x: (aten.mean.dim, x, [-1], True),
        lambda x: (aten.cat.default, [x, x, x], 1),
        lambda x: (aten.cat.default, [x, x], -1),
        lambda x: (aten.clone.default, x),
        lambda x: (aten._softmax.default, x, -1, False),
        lambda x: (aten.native_layer_norm.default, x, [6], meta(6), meta(6), 1e-5),
        lambda x: (aten.native_layer_norm.default, x, [5, 6], None, None, 1e-5),
        lambda x: (aten.native_batch_norm.default, x, None, None, meta(4), meta(4), True, 0.1, 1.0),
        lambda x: (aten.roll.default, x, [1], [2]),
        lambda x: (aten.upsample_bilinear2d.default, x, [7, 3], False),
        lambda x: (aten.upsample_bicubic2d.default, x, [10, 12], True, 2.0, 2.0),
        lambda x: (aten.upsample_nearest2d.default, x, [7, 3]),
        lambda x: (aten.upsample_nearest2d.default, x[:, :1], [7, 3]),
        lambda x: (aten.upsample_bilinear2d.default, x[..., :1, :1], [1, 3], False),
        lambda x: (aten.upsample_linear1d.default, x[0], [7], False),
        lambda x: (aten.upsample_trilinear3d.default, x[None], [3, 7, 2], True),
        lambda x: (aten.grid_sampler_2d.default, x, meta(2, 3, 7, 2), 0, 0, False),
        lambda x: (aten.grid_sampler_2d.default, meta(2, 3, 5, 6), x[..., :2], 1, 1, True),
        lambda x: (aten.native_group_norm.default, x, meta(4), meta(4), 2, 4, 30, 2, 1e-5),
        lambda x: (aten.native_group_norm.default, x, None, None, 2, 4, 30, 4, 1e-5),
    ],
)  # fmt: skip
def test_operations_with_a_shortcut(call: Callable[[Tensor], Any], layout: str) -> None:
    func, *args = call(meta(2, 4, 5, 6, layout=layout))
    same(func, *args)


@pytest.mark.parametrize('layout', ['plain', 'channels last', 'transposed', 'strided'])
def test_batch_norm_in_evaluation_makes_no_statistics_as_on_the_cpu(layout: str) -> None:
    x, options = meta(2, 4, 5, 6, layout=layout), (False, 0.1, 1e-5)
    args = (x, *(meta(4) for _ in range(4)), *options)
    actual = shapes.run_operation(aten.native_batch_norm.default, args, {})
    assert describe(actual[0]) == describe(aten.native_batch_norm.default(*args)[0])
    real = aten.native_batch_norm.default(torch.ones(2, 4, 5, 6), *[torch.ones(4)] * 4, *options)
    if layout == 'plain':
        assert [tuple(t.shape) for t in actual] == [tuple(t.shape) for t in real]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    draw, count = data.draw, data.draw(st.integers(1, 3))
    groups, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    inputs, outputs = (groups * draw(st.integers(1, 3)) for _ in range(2))
    kernel = [draw(st.integers(1, 3)) for _ in range(count)]
    weight = [inputs, outputs // groups] if transposed else [outputs, inputs // groups]
    each = [draw(st.integers(1, 2)) for _ in range(count)]
    same(
        aten.convolution.default, meta(2, inputs, *[7] * count), meta(*weight, *kernel),
        meta(outputs) if draw(st.booleans()) else None, each, [draw(st.integers(0, 1))] * count,
        [1] * count, transposed, [0] * count, groups,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('func', 'args'),
    [
        (aten.addmm.default, (meta(4), meta(3, 5), meta(5, 4))),
        (aten.addmm.default, (meta(3, 4), meta(3, 5), meta(5, 4))),
        (aten.mm.default, (meta(3, 5), meta(5, 4))),
        (aten.bmm.default, (meta(2, 3, 5), meta(2, 5, 4))),
    ],
)
def test_matrix_products(func: Any, args: tuple[Tensor, ...]) -> None:
    same(func, *args)


@pytest.mark.parametrize(
    ('func', 'args'),
    [
        (aten.add.Tensor, (meta(3, 4), meta(3, 5))),
        (aten.mm.default, (meta(3, 5), meta(4, 5))),
        (aten.addmm.default, (meta(7), meta(3, 5), meta(5, 4))),
        (aten.cat.default, ([meta(2, 3), meta(3, 2)], 1)),
        (aten.native_layer_norm.default, (meta(2, 6), [5], meta(5), meta(5), 1e-5)),
        (aten.convolution.default, (meta(1, 4, 8, 8), meta(6, 3, 3, 3), None, [1, 1], [0, 0],
                                    [1, 1], False, [0, 0], 1)),
        (aten.native_group_norm.default, (meta(2, 4, 3), meta(5), meta(5), 2, 4, 3, 2, 1e-5)),
        (aten.grid_sampler_2d.default, (meta(2, 4, 3, 3), meta(1, 3, 3, 2), 0, 0, False)),
        (aten.native_batch_norm.default, (meta(2, 4, 3), meta(5), meta(5), meta(5), meta(5), False,
                                          0.1, 1e-5)),
    ],
)  # fmt: skip
def test_mismatched_arguments_are_an_error_as_well(func: Any, args: tuple[Any, ...]) -> None:
    with pytest.raises(Exception):  # noqa: B017 - the kernels raise various kinds
        func(*args)
    with pytest.raises(Exception):  # noqa: B017
        shapes.run_operation(func, args, {})


def test_constants_join_the_meta_device() -> None:
    assert (
        shapes.run_operation(aten.add.Tensor, (meta(2, 3), torch.ones(3)), {}).device.type == 'meta'
    )
    result = shapes.run_operation(aten.cat.default, ([torch.ones(2, 3), meta(1, 3)],), {})
    assert result.device.type == 'meta' and result.shape == (3, 3)
