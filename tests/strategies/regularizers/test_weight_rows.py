"""Weight rows against sums and products over whole tensors, in several orders of memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from easypruner.strategies.regularizers import weight_rows

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    'contiguous': lambda t: t,
    'channels last': lambda t: t.contiguous(memory_format=torch.channels_last),
    'transposed': lambda t: t.transpose(2, 3),
    'half': lambda t: t.half(),
}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_rows, '_PIECE', 100)


def make(layout: str, *shape: int) -> Tensor:
    tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return LAYOUTS[layout](tensor) if len(shape) == 4 else tensor


@pytest.mark.parametrize('dims', [[0], [1], [0, 1], [1, 0]])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('shape', [(7, 6, 3, 3), (9, 4, 1, 1), (5, 30)])
def test_sums_and_products(layout: str, dims: list[int], shape: tuple[int, ...]) -> None:
    weight = make(layout, *shape)
    gradient = torch.zeros_like(weight)
    exact = weight.double()
    others = [[d for d in range(len(shape)) if d != dim] for dim in dims]
    (found,) = weight_rows.square_sums([(weight, dims)])
    for sums, rest in zip(found, others, strict=True):
        torch.testing.assert_close(sums.double(), (exact**2).sum(rest), rtol=1e-2, atol=1e-2)
        if weight.dtype == torch.float32:
            torch.testing.assert_close(sums.double(), (exact**2).sum(rest), rtol=1e-6, atol=0)
    factors = [(dim, torch.arange(1.0, shape[dim] + 1).to(weight)) for dim in dims]
    torch._foreach_addcmul_(
        *(weight_rows.with_factors(factors, gradient, weight)[i] for i in (1, 2, 0))
    )
    wanted = sum(
        exact * values.double().view([-1 if d == dim else 1 for d in range(len(shape))])
        for dim, values in factors
    )
    tolerance = 1e-6 if weight.dtype == torch.float32 else 1e-2
    assert isinstance(wanted, Tensor)
    torch.testing.assert_close(gradient.double(), wanted, rtol=tolerance, atol=tolerance)


def test_a_large_weight_is_read_in_pieces_that_take_all_factors_at_once() -> None:
    weight = make('contiguous', 12, 20)
    factors = [(0, torch.ones(12)), (1, torch.ones(20))]
    row, parts = weight_rows.with_factors(factors, weight)
    assert [tuple(part.shape) for part in parts] == [(5, 20), (5, 20)] * 2 + [(2, 20)] * 2
    assert [tuple(values.shape) for values in row[:2]] == [(5, 1), (20,)]
