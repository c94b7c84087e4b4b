"""The tape: the list of ATen operations of one forward pass, recorded on stand-ins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.base.nested import map_tensors, tensors_in
from easypruner.errors import ConfigError, TraceError
from easypruner.graph.recording.asked import AskedValues
from easypruner.graph.recording.backends import (
    TensorBackend,
    make_backends,
    make_replaying_backend,
)
from easypruner.graph.recording.composites import run_parts, without_compilation
from easypruner.graph.recording.input_advice import advise_inputs
from easypruner.graph.recording.inventory import StandIns, check_shapes, without_fast_path
from easypruner.graph.recording.kinds import kind_of, once_each
from easypruner.graph.recording.meta_shapes import tensors_of
from easypruner.graph.recording.outputs import ALL_OUTPUTS, CountedOutputs
from easypruner.graph.recording.values import Watcher, is_reserve

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
    # The values that one pass asks for are not those of another.
    anew = backend is None or backend.replays
    for chosen in make_backends() if anew else (backend,):
        assert chosen is not None
        try:
            run = _run(stand_ins, call, training, chosen)
        except Exception as error:
            reason = error
            continue
        if chosen.guesses and backend is None and not _is_worth_guessing(run):
            continue
        tape = run.make_tape(counted)
        return _replay(stand_ins, call, training, run, tape, counted) or tape
    raise TraceError(
        f'the forward pass of {type(stand_ins.model).__name__} fails on the given example inputs: '
        f'{_reason(reason, advise_inputs(call))}{_advise_values(stand_ins, reason)}'
    ) from reason


@dataclass(frozen=True)
class _Run:
    """A forward pass that was recorded.

    Attributes:
        recorder: has its operations, and what it asked for.
        parameters: dotted name of a parameter or buffer -> its stand-in.
        inputs: the inputs, as stand-ins.
        output: what the model returned.
        backend: the kind of stand-ins.
    """

    recorder: _Recorder
    parameters: Mapping[str, Tensor]
    inputs: Call
    output: Any
    backend: TensorBackend

    def make_tape(self, counted: CountedOutputs) -> Tape:
        """Return the tape of the pass."""
        return Tape(
            self.recorder.operations,
            dict(self.parameters),
            self.inputs,
            tuple(tensors_in(self.output)),
            counted.select(self.output),
            self.backend,
        )


def _run(stand_ins: StandIns, call: Call, training: bool, backend: TensorBackend) -> _Run:
    """Run the forward pass of a model on stand-ins of a kind."""
    parameters = {name: backend.make(t) for name, t in stand_ins.tensors.items()}
    inputs = map_tensors(call, backend.make)
    recorder = _Recorder(stand_ins)
    # On real tensors, layers such as dropout in training draw random numbers.
    only_calls = not callable(call) and not backend.has_values
    with stand_ins.with_tensors(parameters, training, only_calls):
        output = run_forward(stand_ins.model, inputs, backend, recorder)
    return _Run(recorder, parameters, inputs, output, backend)


def _replay(
    stand_ins: StandIns,
    call: Call,
    training: bool,
    run: _Run,
    tape: Tape,
    counted: CountedOutputs,
) -> Tape | None:
    """Return the tape of a pass on real tensors as it is on the meta device.

    There trials of cuts know the shape of each tensor, because what the code asks for is the same.

    Returns:
        The tape; None if the pass had other tensors already, or does not run there.
    """
    asked = run.recorder.runner
    if not isinstance(asked, AskedValues):
        return None
    try:
        again = _run(stand_ins, call, training, make_replaying_backend(asked.answers))
    except Exception:  # any exception of a model, such as for tensors that have no values
        return None
    replayed = again.make_tape(counted)
    shapes = ([tensor.shape for _, tensor in t.outputs] for t in (tape, replayed))
    first, second = shapes
    return replayed if first == second else None


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


def _is_worth_guessing(run: _Run) -> bool:
    """Return whether a pass would take long on real tensors, and reads all parameters.

    Code that runs only under a condition may have parameters of its own.
    """
    operations = run.recorder.operations
    read = {id(tensor) for operation in operations for tensor in operation.tensors}
    used = all(
        id(tensor) in read
        for tensor in run.parameters.values()
        if tensor.is_floating_point() and tensor.numel() > 1
    )
    return used and sum(map(_multiply_adds, operations)) > _MANY_MACS


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
