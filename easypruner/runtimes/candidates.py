"""Candidates: networks to be timed, in a runtime and with a size of the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from easypruner.base.modules import copy_of, evaluating
from easypruner.base.nested import map_tensors
from easypruner.errors import EasyPrunerError
from easypruner.runtimes.agreement import with_batch
from easypruner.runtimes.memory import peak_memory
from easypruner.runtimes.program import advise_dtype, input_tensors, on_cpu, outputs_of
from easypruner.runtimes.runtime import Exported, Runtime, Session


@dataclass(frozen=True)
class Candidate:
    """A network to time.

    Attributes:
        name: its name.
        network: the network; None if there are only files of it.
        inputs: its example inputs.
        exported: name of a runtime -> the files of the network for it, if there is no network.
    """

    name: str
    network: nn.Module | None
    inputs: Any
    exported: Mapping[str, Exported] = field(default_factory=dict)


def has_files(runtime: Runtime) -> bool:
    """Return whether a runtime runs networks that it has exported, not those of torch."""
    return type(runtime).session is Runtime.session


class Loaded:
    """A network in a runtime, exported when it is first needed."""

    def __init__(self, candidate: Candidate, runtime: Runtime, folder: Path) -> None:
        self.name = candidate.name
        self._network = None if candidate.network is None else on_cpu(candidate.network)
        self._given = candidate.exported
        self._inputs = map_tensors(candidate.inputs, lambda tensor: tensor.detach().cpu())
        self._runtime = runtime
        self._folder = folder
        self._exported: dict[int, Exported] = {}
        self._has_files = has_files(runtime)

    @property
    def advice(self) -> str:
        """What to do about the network if the runtime cannot take it; '' if that is not known."""
        return '' if self._network is None else advise_dtype(self._network)

    def passing(self, batch: int) -> Callable[[], tuple[Tensor, ...]]:
        """Return a function that runs the network once."""
        inputs = self._inputs_of(batch)
        return self._session(batch, inputs).bind(inputs)

    def memory(self, batch: int) -> int | None:
        """Return the memory that loading the network and a first pass take."""
        inputs = self._inputs_of(batch)
        self._export(batch, inputs)

        def load() -> object:
            run = self._session(batch, inputs, shares=False).bind(inputs)
            return run, run()

        return peak_memory(load)

    def bytes(self, batch: int) -> int:
        """Return the size of the files, or of the weights if there are none."""
        if self._network is None or self._has_files:
            return self._export(batch, self._inputs_of(batch)).size
        state = self._network.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in state)

    def _inputs_of(self, batch: int) -> Any:
        """Return inputs of as many samples.

        A network may take a list of images, or the nodes and edges of a graph: the example inputs
        are one sample then.
        """
        sizes = {len(tensor) for tensor in input_tensors(self._inputs) if tensor.dim()}
        if sizes == {0}:
            raise EasyPrunerError('the example inputs have no sample; give one or more')
        resized, shared = with_batch(self._inputs, batch), len(sizes) <= 1
        if shared and (self._network is None or batch > 1 or self._takes(resized)):
            return resized
        if batch > 1:
            raise EasyPrunerError(
                'the inputs do not share their first dimension, so there is no size of the batch '
                'to set; a batch of 1 is the example inputs as they are'
            )
        return self._inputs

    def _takes(self, inputs: Any) -> bool:
        """Return whether torch runs the network on inputs, or not even on the example inputs."""
        assert self._network is not None
        with evaluating(self._network):
            for given in (inputs, self._inputs):
                try:
                    outputs_of(self._network, given)
                except Exception:  # a forward raises errors of any class
                    continue
                return given is inputs
        return True

    def _session(self, batch: int, inputs: Any, shares: bool = True) -> Session:
        """Return a session of the network.

        Args:
            batch: the number of samples of a pass.
            inputs: as many of them.
            shares: whether a runtime without files may share the weights of the network.
        """
        if self._network is None or self._has_files:
            return self._runtime.load(self._export(batch, inputs).path)
        network = self._network if shares else copy_of(self._network)
        with evaluating(network):
            return self._runtime.session(network, inputs)

    def _export(self, batch: int, inputs: Any) -> Exported:
        """Return the files for a batch, which may be those of another batch."""
        if self._network is None:
            return self._find_given(batch)
        known = next((e for e in self._exported.values() if e.dynamic_batch), None)
        if not self._has_files:
            return Exported(Path(), ())
        if known is None and batch not in self._exported:
            folder = self._folder / str(batch)
            folder.mkdir(parents=True)
            with evaluating(self._network):
                exported = self._runtime.export(self._network, inputs, folder, 'network')
            self._exported[batch] = exported
        return known or self._exported[batch]

    def _find_given(self, batch: int) -> Exported:
        """Return the files that there are for the runtime and a batch."""
        given = self._given.get(self._runtime.name)
        if given is None:
            raise EasyPrunerError(
                f'it was exported for {", ".join(self._given)} only; choose one of these runtimes'
            )
        sizes = {len(tensor) for tensor in input_tensors(self._inputs) if tensor.dim()}
        if not given.dynamic_batch and len(sizes) == 1 and batch not in sizes:
            raise EasyPrunerError(
                f'it was exported for a batch of {sizes.pop()} only; export it with example inputs '
                f'of {batch}'
            )
        return given
