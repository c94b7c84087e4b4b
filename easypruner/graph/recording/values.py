"""Values of tensors on the meta device, computed only where a forward pass asks for them.

A forward pass may ask for the length of a sequence, or whether a mask hides anything. Such values
are often computed from the inputs and from constants alone. The operations on these are then run
again on real tensors, in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from easypruner.base.nested import map_tensors, tensors_in
from easypruner.graph.recording.kinds import NMS, kind_of
from easypruner.graph.recording.meta_shapes import run_operation, tensors_of

aten = torch.ops.aten

_BYTES = torch.uint8
_EMPTY, _INDEX, _TO_COPY = aten.empty.memory_format, aten.index.Tensor, aten._to_copy.default

_pop_mode = torch._C._pop_torch_dispatch_stack
_push_mode = torch._C._push_on_torch_dispatch_stack
_count_modes = torch._C._len_torch_dispatch_stack
_mode_at = torch._C._get_dispatch_stack_at
_has_function_mode = torch._C._is_torch_function_mode_enabled
_top_transform = torch._C._functorch.peek_interpreter_stack

Guess = Callable[[Any, tuple[Any, ...], 'int | None'], Any]
"""A function of an operation, its arguments, and how often code asked for values before it (None
if that is not counted) that returns a result."""


class Runner(Protocol):
    """Runs the operations of a pass."""

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, given its arguments, and return its result."""


class UnknownValueError(RuntimeError):
    """A forward pass asks for a value that depends on weights."""


def is_known(tensor: Tensor) -> bool:
    """Return whether the values of an input, parameter or buffer are used.

    They are if no cut changes the tensor: integers, such as a mask or a table, and single numbers.
    """
    if tensor.numel() != 1 and (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return tensor.layout is torch.strided


class Values:
    """The values of the tensors of one run on the meta device.

    Args:
        known: identity of a stand-in -> (the stand-in, the tensor with its values).
        guess: returns a result for an operation that asks for an unknown value; None to raise.
    """

    def __init__(
        self, known: Mapping[int, tuple[Tensor, Tensor]], guess: Guess | None = None
    ) -> None:
        self._known = known
        self._guess = guess
        self._asked = 0
        # Tensors are kept, so that no other tensor gets the id of one of them.
        self._log: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._replayed = 0
        self._real: dict[int, tuple[Tensor, Tensor]] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation. It gets values where it needs them.

        Raises:
            UnknownValueError: it needs a value that depends on weights.
        """
        if kind_of(func).asks_values:
            number, self._asked = self._asked, self._asked + 1
            if func is aten.masked_select.default and args[0].is_meta:
                return self._select(*args)
            if any(tensor.is_meta for tensor in tensors_of(args)):
                return self._answer(func, args, kwargs, number)
        elif func is _TO_COPY and args[0].is_meta and _goes_to_cpu(kwargs):
            return self._answer(func, args, kwargs, on_meta=False)
        elif func is _INDEX:
            args = (args[0], [self._positions(index) for index in args[1]])
        result = run_operation(func, args, kwargs)
        self._log.append((func, args, kwargs, result))
        return result

    def _positions(self, index: Tensor | None) -> Any:
        """Return the positions at which a mask is true; another index is returned as it is."""
        if index is None or not is_mask(index):
            return index
        number, self._asked = self._asked, self._asked + 1
        if not index.is_meta:
            return index
        found = self._answer(aten.nonzero.default, (index,), {}, number)
        if index.dim() != 1:
            raise UnknownValueError('a mask of several dimensions selects entries')
        return run_operation(aten.select.int, (found, 1, 0), {})

    def _select(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the entries at which a mask is true, of which only the number is known.

        It may be a multiple of a width. So that of another pass is not given again.
        """
        self._replay()
        found = self._find(mask)
        if found is None and self._guess is not guess_result:
            raise UnknownValueError('a mask that depends on weights selects entries')
        shape = torch.broadcast_shapes(x.shape, mask.shape)  # type: ignore[no-untyped-call]
        count = math.prod(shape) if found is None else int(found.broadcast_to(shape).sum())
        result = torch.empty(count, dtype=x.dtype, device='meta')
        self._log.append((aten.masked_select.default, (x, mask), {}, result))
        return result

    def _answer(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        number: int | None = None,
        on_meta: bool = True,
    ) -> Any:
        """Return the result of an operation that needs values, as stand-ins or real tensors."""
        self._replay()
        found = self._to_real((args, kwargs))
        if found is not None:
            real = func(*found[0], **found[1])
            return map_tensors(real, self._to_stand_in) if on_meta else real
        if self._guess is None:
            raise UnknownValueError(f'{func.name()} needs values that depend on weights')
        return self._guess(func, args, number)

    def _replay(self) -> None:
        """Run the operations whose values are known, from where the last call ended."""
        for func, args, kwargs, result in self._log[self._replayed :]:
            outputs = tensors_of((result,))
            if not any(tensor.is_meta for tensor in outputs):
                continue
            found = self._to_real((args, kwargs))
            if found is None:
                self._forget(func, args)
                continue
            pairs = zip(outputs, tensors_of((func(*found[0], **found[1]),)), strict=True)
            self._real.update({id(output): (output, real) for output, real in pairs})
        self._replayed = len(self._log)

    def _forget(self, func: Any, args: tuple[Any, ...]) -> None:
        """Forget the values of tensors, and their views, into which unknown ones are written."""
        for argument, given in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tensors_of((given,)):
                    real = self._find(tensor)
                    if real is not None:
                        memory = real.untyped_storage().data_ptr()
                        self._real = {
                            key: pair
                            for key, pair in self._real.items()
                            if pair[1].untyped_storage().data_ptr() != memory
                        }

    def _to_real(self, arguments: Any) -> Any:
        """Return arguments with the values of their tensors; None if one of them is not known."""
        if any(self._find(tensor) is None for _, tensor in tensors_in(arguments)):
            return None
        args, kwargs = map_tensors(arguments, self._value_of)
        if 'device' in kwargs:
            kwargs = {**kwargs, 'device': torch.device('cpu')}
        return args, kwargs

    def _find(self, tensor: Tensor) -> Tensor | None:
        """Return the values of a tensor, or None."""
        if not tensor.is_meta:
            return tensor
        if id(tensor) not in self._real and id(tensor) in self._known:
            # An operation may change them.
            self._real[id(tensor)] = tensor, self._known[id(tensor)][1].detach().clone()
        pair = self._real.get(id(tensor))
        return None if pair is None else pair[1]

    def _value_of(self, tensor: Tensor) -> Tensor:
        found = self._find(tensor)
        assert found is not None
        return found

    def _to_stand_in(self, real: Tensor) -> Tensor:
        stand_in = torch.empty(real.shape, dtype=real.dtype, device='meta')
        self._real[id(stand_in)] = stand_in, real
        return stand_in


def is_mask(index: Tensor | None) -> bool:
    """Return whether an index selects the entries at which it is true."""
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _goes_to_cpu(kwargs: Mapping[str, Any]) -> bool:
    device = kwargs.get('device')
    return device is not None and torch.device(device).type == 'cpu'


class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode without the overhead of torch's own.

    Attributes:
        runner: what runs the operations; None for torch alone.
        run: runs an operation, given its arguments, and returns its result.
        takes_leaves: whether layers may hand over their operations without torch.
    """

    supports_higher_order_operators = True

    takes_leaves: bool = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.runner: Runner | None = None
        self.run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] = run_operation

    def start(self, runner: Runner | None) -> None:
        """Start a run.

        Args:
            runner: what runs the operations, such as one that knows values of tensors on the meta
                device; None for torch alone.
        """
        self.runner = runner
        self.run = run_operation if runner is None else runner.run

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To guard an operation against torch.compile takes as long as to compute its shape.
        return False

    def hand_over(self, func: Any, *args: Any) -> Any:
        """Handle an operation as if torch had dispatched it. The watcher must be active."""
        # As torch does it, the mode is not active while it handles an operation.
        _pop_mode(None)
        try:
            return self.__torch_dispatch__(func, (), args)  # type: ignore[no-untyped-call]
        finally:
            _push_mode(self)


def active_watcher() -> Watcher | None:
    """Return the watcher that gets the operations; None if anything else gets them as well.

    Code may compute derivatives or map over a batch: then torch has more to do for an operation.
    """
    if _count_modes() == 1 and not _has_function_mode() and not _is_transformed():
        mode = _mode_at(0)
        if isinstance(mode, Watcher) and mode.takes_leaves:
            return mode
    return None


def _is_transformed() -> bool:
    """Return whether a pass records gradients, or is inside of a function of ``torch.func``."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0 or _top_transform() is not None


def is_reserve(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operation makes the empty tensor that torch reserves for a batch norm."""
    return func is _EMPTY and not any(args[0]) and kwargs.get('dtype') is _BYTES


def guess_result(func: Any, args: tuple[Any, ...], number: int | None = None) -> Any:
    """Return the result of an operation that asks for values which only a real run would have.

    Where entries are selected, all are, as in a network that detects as much as its code allows. A
    condition is not met, a number is 1, and all entries are equal.

    Raises:
        UnknownValueError: for other operations.
    """
    x = args[0]
    if func is aten._local_scalar_dense.default:
        return False if x.dtype is torch.bool else 1 if not x.is_floating_point() else 1.0
    if func is aten.nonzero.default:
        return torch.empty((x.numel(), x.dim()), dtype=torch.int64, device='meta')
    if func.name() == NMS:
        return torch.empty(x.shape[:1], dtype=torch.int64, device='meta')
    if func is aten._unique2.default:
        positions = torch.empty(x.shape, dtype=torch.int64, device='meta')
        return x.new_empty(1), positions, positions.new_empty(1)
    raise UnknownValueError(f'{func.name()} needs values that depend on weights')
