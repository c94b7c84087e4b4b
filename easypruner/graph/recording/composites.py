"""Higher-order operations: run as the operations of which they consist, such as flex attention."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map


def is_composite(func: Any) -> bool:
    """Return whether an operation takes functions, and runs others by them."""
    return isinstance(func, HigherOrderOperator)


def run_parts(
    mode: TorchDispatchMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run the operations of which another consists; a dispatch mode gets each of them.

    Raises:
        NotImplementedError: torch has no implementation that consists of other operations.
    """
    kernel = func.py_kernels.get(DispatchKey.CompositeExplicitAutograd)
    kernel = _WRITTEN_OUT.get(func.name(), kernel)
    if kernel is None:
        raise NotImplementedError(f'torch cannot run {func} as a sequence of other operations')
    with mode, _Unrecorded(), torch.no_grad():  # type: ignore[no-untyped-call]
        return kernel(*args, **kwargs)


def _attend(query: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """Run flex attention as products of matrices, with the memory layout of its queries."""
    from torch._higher_order_ops.flex_attention import math_attention

    output, *others = math_attention(query, *args, **kwargs)
    strides = query.stride()
    order = sorted(range(query.dim()), key=strides.__getitem__, reverse=True)
    inverse = sorted(range(query.dim()), key=order.__getitem__)
    return output.permute(order).contiguous().permute(inverse), *others


def _choose(
    condition: Tensor, if_true: Callable[..., Any], if_false: Callable[..., Any], inputs: Any
) -> Any:
    """Run both branches, which a cut has to fit, and choose their results. Costs are of both."""
    results = if_true(*inputs), if_false(*inputs)
    return tree_map(lambda one, other: torch.where(condition, one, other), *results)


_WRITTEN_OUT: dict[str, Callable[..., Any]] = {'flex_attention': _attend, 'cond': _choose}


class _Unrecorded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hides the tables of positions that flex attention makes, of heads as well, used or not.

    An operation that uses such a table finds a constant tensor.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        hidden = func.overloadpacket is torch.ops.aten.arange
        with _disable_current_modes() if hidden else contextlib.nullcontext():
            return func(*args, **(kwargs or {}))


def without_compilation() -> contextlib.AbstractContextManager[Any]:
    """Let compiled functions run as they were written: a compiled one hides its operations.

    Nothing is imported for it that is not loaded.
    """
    compilers = ('torch._dynamo', 'torch.nn.attention.flex_attention')
    set_stance = getattr(torch.compiler, 'set_stance', None)  # since torch 2.6
    if set_stance is None or not any(name in sys.modules for name in compilers):
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[Any] = set_stance('force_eager')
    return stance


def forget_compiled() -> None:
    """Let torch forget what it has compiled, after the shapes of a network have changed.

    Torch compiles a function for a few shapes only, eight by default, and then runs it uncompiled.
    The network itself does not tell whether a compiled function calls it.
    """
    frames = sys.modules.get('torch._dynamo.convert_frame')
    if frames is not None:
        codes = getattr(frames, 'output_codes', None)
        if getattr(codes, 'seen', True):
            torch.compiler.reset()
