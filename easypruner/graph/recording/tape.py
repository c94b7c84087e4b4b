"""The tape: every ATen operation of one forward pass, written down on the meta device."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from easypruner.base.nested import map_tensors, tensors_in
from easypruner.errors import TraceError
from easypruner.graph.recording import meta_shapes as shapes
from easypruner.graph.recording.stand_ins import Rehearsal, without_fast_path

ExampleInputs = Any
"""A tensor, a tuple or list of positional arguments, or a dict of keyword arguments."""


@cache
def name_of(func: Any) -> str:
    """Return the name of an operation, without ``aten::``: ``convolution``, ``mylib::my_op``."""
    return str(func._schema.name).removeprefix('aten::')


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation as it ran. Two are equal only if they are the same object.

    Attributes:
        func: the overload, e.g. ``aten.convolution.default``.
        args: positional arguments; tensors among them are meta tensors of the tape.
        kwargs: keyword arguments, likewise.
        outputs: the tensors that came out, in order.
        module: dotted path of the module in whose forward it ran ('' is the model itself).
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]
    module: str

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors among the arguments, those in lists included."""
        found: list[Tensor] = []
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, Tensor):
                found.append(value)
            elif isinstance(value, (list, tuple)):
                found.extend(item for item in value if isinstance(item, Tensor))
        return tuple(found)

    @property
    def name(self) -> str:
        """The operation's name: ``convolution``, or ``mylib::my_op`` where it is not ATen's."""
        return name_of(self.func)

    def __str__(self) -> str:
        return f'{self.name} in {self.module or "the model itself"}'


@dataclass(frozen=True)
class World:
    """What stands in for the model's tensors while its forward runs.

    Attributes:
        depends_on_values: whether they are real, because the forward pass asks for values.
        stand_in: makes a stand-in of a tensor.
        entered: opens what must be active while stand-ins are worked with.
    """

    depends_on_values: bool
    stand_in: Callable[[Tensor], Tensor]
    entered: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


def worlds() -> Iterator[World]:
    """Yield the worlds in which a forward may run, from the cheapest on.

    Meta tensors have no device of their own and cannot be mixed with the tensors that a model
    keeps in plain attributes; fake ones can. Neither has values.
    """
    yield World(False, _on_meta)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    yield World(False, lambda tensor: fake.from_tensor(tensor.detach()), lambda: _quiet(fake))
    yield World(True, lambda tensor: tensor.detach().clone())


def _on_meta(tensor: Tensor) -> Tensor:
    # Python code behind torch.empty_like() makes it ten times as slow on this device.
    shape, strides = tensor.shape, tensor.stride()
    return torch.empty_strided(shape, strides, dtype=tensor.dtype, device='meta')


@contextlib.contextmanager
def _quiet(fake: FakeTensorMode) -> Iterator[None]:
    """Enter a fake mode without its log of every operation that fails: here that is no mishap."""
    log = logging.getLogger('torch._subclasses.fake_tensor')
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with fake:
            yield
    finally:
        log.setLevel(level)


@dataclass(frozen=True)
class Tape:
    """What one forward pass did.

    Attributes:
        operations: in the order they ran.
        parameters: dotted name of each parameter and buffer -> its stand-in on the tape. Tied
            tensors appear once, under the first of their names.
        example_inputs: what the model was called with, as stand-ins.
        outputs: the tensors it returned, with the path to each inside the output.
        world: what the tensors on the tape are.
    """

    operations: list[Operation]
    parameters: dict[str, Tensor]
    example_inputs: ExampleInputs
    outputs: tuple[tuple[str, Tensor], ...]
    world: World

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors the model was called with."""
        return tuple(tensor for _, tensor in tensors_in(self.example_inputs))


def record(
    rehearsal: Rehearsal,
    example_inputs: ExampleInputs,
    training: bool = False,
    world: World | None = None,
) -> Tape:
    """Run the model once on the meta device and return what it did.

    Tensors that the model keeps in plain attributes may mix devices; then the pass is repeated
    with fake and, where values are needed, with real tensors.

    Args:
        rehearsal: of the model.
        example_inputs: a tensor, a tuple of positional arguments or a dict of keyword arguments.
        training: run in training mode instead of evaluation mode.
        world: what is to stand in for tensors; by default the cheapest that will do.

    Raises:
        TraceError: the forward pass fails.
    """
    for name, tensor in rehearsal.tensors.items():
        if nn.parameter.is_lazy(tensor):
            raise TraceError(
                f'parameter {name!r} has no shape yet (a lazy module); '
                'run the model once on real data before tracing it'
            )
    reason: Exception | None = None
    for tried in worlds() if world is None else (world,):
        tape, reason = _try(rehearsal, example_inputs, training, tried)
        if tape is not None:
            return tape
    raise TraceError(
        f'the forward pass of {type(rehearsal.model).__name__} fails on the given example inputs: '
        f'{type(reason).__name__}: {reason}'
    ) from reason


def _try(
    rehearsal: Rehearsal, example_inputs: ExampleInputs, training: bool, world: World
) -> tuple[Tape | None, Exception | None]:
    parameters = {name: world.stand_in(t) for name, t in rehearsal.tensors.items()}
    inputs = map_tensors(example_inputs, world.stand_in)
    recorder = _Recorder(rehearsal)
    try:
        with rehearsal.with_tensors(parameters, training):
            output = run_forward(rehearsal.model, inputs, world, recorder)
    except Exception as error:
        return None, error
    outputs = tuple(tensors_in(output))
    return Tape(recorder.operations, parameters, inputs, outputs, world), None


def run_forward(
    model: nn.Module, example_inputs: ExampleInputs, world: World, watcher: TorchDispatchMode
) -> Any:
    """Run the model's forward on stand-ins without gradients, watched; return its output."""
    args, kwargs = call_arguments(example_inputs)
    with torch.no_grad(), without_fast_path(), world.entered(), watcher:
        return model(*args, **kwargs)


class _Recorder(shapes.Watcher):  # type: ignore[no-untyped-call]
    """Writes down every operation while active."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._rehearsal = rehearsal

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        noted = args
        if torch.Tag.inplace_view in func.tags:
            noted = (self._set_apart(args[0]), *args[1:])
        result = shapes.run(func, args, kwargs)
        outputs = shapes.tensors_of(result)
        self.operations.append(Operation(func, noted, kwargs, outputs, self._rehearsal.path))
        return result

    def _set_apart(self, tensor: Tensor) -> Tensor:
        """Return a stand-in for ``tensor``, whose shape is about to change in place.

        The operations so far refer to it from now on.
        """
        made = any(tensor is output for op in self.operations for output in op.outputs)
        if not made:
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


def call_arguments(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments that ``example_inputs`` stand for."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}
