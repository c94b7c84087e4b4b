"""The tape: the list of ATen operations of one forward pass, recorded on stand-ins."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from easypruner.base.describe import describe
from easypruner.base.nested import map_tensors, tensors_in
from easypruner.base.settings import changed_setting
from easypruner.errors import ConfigError, TraceError
from easypruner.graph.recording.composites import run_parts, without_compilation
from easypruner.graph.recording.input_advice import advise_inputs
from easypruner.graph.recording.inventory import StandIns, check_shapes, without_fast_path
from easypruner.graph.recording.kinds import kind_of, once_each
from easypruner.graph.recording.list_indices import list_indices_kept
from easypruner.graph.recording.meta_shapes import tensors_of
from easypruner.graph.recording.meta_shortcuts import META
from easypruner.graph.recording.outputs import ALL_OUTPUTS, CountedOutputs
from easypruner.graph.recording.values import (
    Guess,
    Values,
    Watcher,
    guess_result,
    is_known,
    is_reserve,
)

ExampleInputs = Any
"""A tensor, a tuple or list of positional arguments, or a dict of keyword arguments."""

_MANY_MACS = 2**29

Call = Any
"""Example inputs, or a function that takes the model, calls it and returns outputs."""


def name_of(func: Any) -> str:
    """Return the name of an operation, without ``aten::``: ``convolution``, ``mylib::my_op``."""
    return kind_of(func).name


@once_each
def _arguments_of(func: Any) -> dict[str, tuple[int, Any]]:
    """Return name -> (position, default) of the arguments of an operation."""
    return {
        entry.name: (position, entry.default_value)
        for position, entry in enumerate(func._schema.arguments)
    }


@dataclass(frozen=True, eq=False, init=False)
class Operation:
    """An operation of a forward pass. Two are equal only if they are the same object.

    Attributes:
        func: the overload, such as ``aten.convolution.default``.
        args: the positional arguments. The tensors among them are tensors of the tape.
        kwargs: the keyword arguments, likewise.
        outputs: the tensors that the operation returned, in order.
        module: the dotted path of the module whose forward ran it; '' is the model itself.
        tensors: the tensors among the arguments, including those in lists.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]
    module: str
    tensors: tuple[Tensor, ...] = field(init=False, repr=False)

    def __init__(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outputs: tuple[Tensor, ...],
        module: str,
    ) -> None:
        tensors = tensors_of((*args, *kwargs.values()) if kwargs else args)
        # There are many, and to set the attributes one by one takes twice as long.
        self.__dict__.update(
            func=func, args=args, kwargs=kwargs, outputs=outputs, module=module, tensors=tensors
        )

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def argument(self, *names: str) -> Any:
        """Return the argument that has one of the names, or its default; None if there is none."""
        known = _arguments_of(self.func)
        for name in names:
            if name in known:
                position, default = known[name]
                given = position < len(self.args)
                return self.args[position] if given else self.kwargs.get(name, default)
        return None

    def dims(self, name: str = 'dim') -> tuple[int, ...]:
        """Return the dimensions of the first tensor that an argument names, from the front.

        None, or an empty list, means all of them.
        """
        dims, count = self.argument(name), self.tensors[0].dim()
        listed = [dims] if isinstance(dims, int) else dims or range(count)
        return tuple(dim % count for dim in listed) if count else ()

    @property
    def name(self) -> str:
        """The operation's name: ``convolution``, or ``mylib::my_op`` if it is not of ATen."""
        return name_of(self.func)

    def __str__(self) -> str:
        return f'{self.name} in {self.module or "the model itself"}'


@dataclass(frozen=True)
class TensorBackend:
    """A kind of stand-ins for the tensors of a model: meta, fake or real tensors.

    Attributes:
        has_values: whether the stand-ins are real tensors.
        make: a function that makes a stand-in of a tensor.
        active: a function that returns the context in which operations on stand-ins must run.
        start: a function that returns the values of the tensors of a run; None if they are real.
        guesses: whether results that depend on the values of weights are guessed.
    """

    has_values: bool
    make: Callable[[Tensor], Tensor]
    active: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    start: Callable[[], Values | None] = lambda: None
    guesses: bool = False


def make_backends() -> Iterator[TensorBackend]:
    """Yield the backends on which a forward pass may run, the cheapest first.

    Meta tensors do not mix with the tensors that a model has in plain attributes on other devices.
    Fake tensors do. Only real tensors have values that depend on weights. To compute them takes
    long in a large network, so that there they are guessed.
    """
    yield _make_meta_backend()
    yield _make_meta_backend(guess_result)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    yield TensorBackend(
        False, lambda tensor: fake.from_tensor(tensor.detach()), lambda: _quiet(fake)
    )
    yield TensorBackend(True, lambda tensor: tensor.detach().clone())


def _make_meta_backend(guess: Guess | None = None) -> TensorBackend:
    known: dict[int, tuple[Tensor, Tensor]] = {}

    def make(tensor: Tensor) -> Tensor:
        if tensor.layout is not torch.strided:  # a sparse matrix has the axes of a dense one
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
        # torch.empty_like() runs Python code on this device, which takes ten times as long.
        stand_in = torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META
        )
        if is_known(tensor):
            known[id(stand_in)] = stand_in, tensor
        return stand_in

    return TensorBackend(
        False,
        make,
        active=list_indices_kept,
        start=lambda: Values(known, guess),
        guesses=guess is not None,
    )


@contextlib.contextmanager
def _quiet(fake: FakeTensorMode) -> Iterator[None]:
    """Enter a fake mode, without its log of failing operations: a failure is expected here."""
    log = logging.getLogger('torch._subclasses.fake_tensor')
    with changed_setting(lambda: log.level, log.setLevel, logging.CRITICAL), fake:
        yield


@dataclass(frozen=True)
class Tape:
    """The operations of one forward pass.

    Attributes:
        operations: the operations in the order in which they ran.
        parameters: dotted name of a parameter or buffer -> its stand-in. A tied tensor has one
            entry, under the first of its names.
        example_inputs: the inputs of the pass, as stand-ins, or the function that calls the model.
        outputs: (path inside the model's output, tensor) of each tensor that the model returned.
        counted: those of them whose channels stay.
        backend: the kind of all these tensors.
    """

    operations: list[Operation]
    parameters: dict[str, Tensor]
    example_inputs: ExampleInputs
    outputs: tuple[tuple[str, Tensor], ...]
    counted: tuple[tuple[str, Tensor], ...]
    backend: TensorBackend


def record(
    stand_ins: StandIns,
    call: Call,
    training: bool = False,
    backend: TensorBackend | None = None,
    counted: CountedOutputs = ALL_OUTPUTS,
) -> Tape:
    """Run the forward pass of a model on stand-ins and return its operations.

    Args:
        stand_ins: runs the model.
        call: example inputs, or a function that takes the model and returns outputs.
        training: run in training mode instead of evaluation mode.
        backend: the kind of stand-ins; by default the cheapest one on which the pass runs.
        counted: chooses the outputs whose channels stay.

    Raises:
        ConfigError: the choice of outputs does not fit what the model returns.
        TraceError: the forward pass fails, or a parameter has no shape yet.
    """
    check_shapes(stand_ins.tensors)
    reason: Exception | None = None
    for chosen in make_backends() if backend is None else (backend,):
        parameters = {name: chosen.make(t) for name, t in stand_ins.tensors.items()}
        inputs = map_tensors(call, chosen.make)
        recorder = _Recorder(stand_ins)
        try:
            # On real tensors, layers such as dropout in training draw random numbers.
            only_calls = not callable(call) and not chosen.has_values
            with stand_ins.with_tensors(parameters, training, only_calls):
                output = run_forward(stand_ins.model, inputs, chosen, recorder)
        except Exception as error:
            reason = error
        else:
            outputs = tuple(tensors_in(output))
            if chosen.guesses and backend is None and not _is_worth_guessing(recorder, parameters):
                continue
            kept = counted.select(output)
            return Tape(recorder.operations, parameters, inputs, outputs, kept, chosen)
    raise TraceError(
        f'the forward pass of {type(stand_ins.model).__name__} fails on the given example inputs: '
        f'{_reason(reason, advise_inputs(call))}{_advise_values(stand_ins, reason)}'
    ) from reason


def _reason(error: Exception | None, advice: str) -> str:
    """Return the message of an error; its first line if there is advice on the cause."""
    message = str(error)
    return f'{type(error).__name__}: {message.splitlines()[0] if advice else message}{advice}'


def _advise_values(stand_ins: StandIns, reason: Exception | None) -> str:
    """Return what to do if a forward pass asks for a value that the model does not have; else ''.

    Such a value is mostly a number of its own.
    """
    empty = [name for name, tensor in stand_ins.tensors.items() if tensor.is_meta]
    if not empty or 'meta tensor' not in str(reason):
        return ''
    name = min(empty, key=lambda name: stand_ins.tensors[name].numel())
    return (
        f'; the pass needs a value, and parameters or buffers such as {name!r} are on the meta '
        'device and have none; build the model on a real device'
    )


def _is_worth_guessing(recorder: _Recorder, parameters: Mapping[str, Tensor]) -> bool:
    """Return whether a pass would take long on real tensors, and reads all parameters.

    Code that runs only under a condition may have parameters of its own.
    """
    read = {id(tensor) for operation in recorder.operations for tensor in operation.tensors}
    used = all(
        id(tensor) in read
        for tensor in parameters.values()
        if tensor.is_floating_point() and tensor.numel() > 1
    )
    return used and sum(map(_multiply_adds, recorder.operations)) > _MANY_MACS


def _multiply_adds(operation: Operation) -> int:
    """Return about how many multiply-adds an operation has."""
    if operation.name == 'convolution':
        weight = operation.args[1]
        return operation.output.numel() * weight.numel() // weight.shape[0]
    if operation.name in ('mm', 'bmm', 'addmm', 'baddbmm'):
        return operation.output.numel() * operation.tensors[-2].shape[-1]
    return 0


def run_forward(
    model: nn.Module,
    call: Call,
    backend: TensorBackend,
    watcher: Watcher,
) -> Any:
    """Run a forward pass on stand-ins, without gradients, and return its output.

    Args:
        model: the model, with stand-ins in place of its tensors.
        call: its inputs, as stand-ins, or a function that calls it.
        backend: the kind of stand-ins.
        watcher: the mode that gets each operation.
    """
    watcher.start(backend.start())
    with torch.no_grad(), without_fast_path(), without_compilation(), backend.active(), watcher:
        return call_model(model, call)


class _Recorder(Watcher):  # type: ignore[no-untyped-call]
    """Records every operation while it is active."""

    def __init__(self, stand_ins: StandIns) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._stand_ins = stand_ins

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.is_composite:
            return run_parts(self, func, args, kwargs)
        if is_reserve(func, args, kwargs):
            return self.run(func, args, kwargs)
        recorded = args
        if kind.changes_shape:
            recorded = (self._preserve(args[0]), *args[1:])
        result = self.run(func, args, kwargs)
        outputs = (result,) if type(result) is Tensor else tensors_of((result,))
        self.operations.append(Operation(func, recorded, kwargs, outputs, self._stand_ins.path))
        return result

    def _preserve(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor whose shape is about to change in place.

        The operations recorded so far get the copy in place of the tensor.
        """
        if not any(tensor is output for op in self.operations for output in op.outputs):
            return tensor
        before = tensor.detach()
        self.operations = [
            dataclasses.replace(
                op,
                args=map_tensors(op.args, lambda t: before if t is tensor else t),
                outputs=tuple(before if t is tensor else t for t in op.outputs),
            )
            for op in self.operations
        ]
        return before


def check_calls(calls: Any) -> None:
    """Check that calls are listed.

    Raises:
        ConfigError: they are not a list or tuple.
    """
    if not isinstance(calls, list | tuple):
        raise ConfigError(
            f'calls: expected a list of example inputs, or of functions that take the model and '
            f'return its outputs, got {describe(calls)}; a single call is calls=[...]'
        )


def call_model(model: nn.Module, call: Call) -> Any:
    """Call a model on example inputs, or by a function that takes it; return its output."""
    if callable(call):
        return call(model)
    args, kwargs = call_arguments(call)
    return model(*args, **kwargs)


def call_arguments(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return example inputs as positional and keyword arguments."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}
