"""Trials: run the forward pass with groups cut, and compare the shapes with the expected ones.

Numbers in Python code (``view(-1, 56, 56, 32)``, ``self.num_heads``) are not on a tape. So the
model's own forward runs again, on stand-ins in which every group has lost units. It fails if an
operation fails, or makes a tensor of another shape than the axes say.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from easypruner.base.nested import tensors_in
from easypruner.graph.coupling.axes import OUTPUT, Axis, Ids
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import Partition, partition
from easypruner.graph.coupling.propagate import Propagation
from easypruner.graph.cutting.handlers import LayerHandler, resize_layers
from easypruner.graph.recording.inventory import StandIns, set_attributes
from easypruner.graph.recording.tape import Operation, Tape, run_forward
from easypruner.graph.trial.coincidences import has_coincidence
from easypruner.graph.trial.expected import ExpectedTrace
from easypruner.graph.trial.independence import is_independent
from easypruner.graph.trial.reads import ReadLog, Reads
from easypruner.graph.trial.trace_check import Failure, TraceCheck, progress_of
from easypruner.graph.trial.widths import Repairs, Widths, choose_units, count_rounds

_MOST_ROUNDS = 8
_POWERS = (0.25, 0.5, 1.0, 2.0)
"""Powers of a width, or of its inverse, by which code scales tensors."""


@dataclass(frozen=True)
class Trial:
    """Runs trials of a traced model.

    Attributes:
        stand_ins: runs the model.
        tape: the tape of its evaluation pass.
        propagation: which axes are coupled, and how their nodes fall into groups.
        handlers: set the modules' own numbers after a cut.
        lifted: the ids of the reasons for which nothing has to stay.
    """

    stand_ins: StandIns
    tape: Tape
    propagation: Propagation
    handlers: Sequence[LayerHandler]
    lifted: tuple[int, ...] = ()

    @property
    def coupling(self) -> Coupling:
        """The axes on the tape and what couples them."""
        return self.propagation.coupling

    @property
    def parts(self) -> Partition:
        """How the nodes fall into groups."""
        return self.propagation.parts

    @cached_property
    def expected(self) -> ExpectedTrace:
        """What the forward pass is expected to do."""
        return ExpectedTrace(self.stand_ins.modules, self.tape, self.coupling)

    def regroup(self) -> Trial:
        """Return the trial of the groups that the coupling has by now."""
        found = self.propagation
        parts = partition(found.coupling, found.owned, found.counted, self.lifted)
        return self.with_propagation(replace(found, parts=parts))

    def counting(self, repairs: Repairs) -> Trial:
        """Return the trial with groups whose units have equally many indices in each repaired axis.

        Then the number of units that stay decides the numbers of modules. So it is not if one of
        them is the width of a part of a dimension: that part gets a group of its own.
        """
        axes = [axis for repair in repairs.values() for axis in repair.axes if axis is not None]
        uneven = [axis for axis in dict.fromkeys(axes) if not self._is_even(axis)]
        if not uneven:
            return self
        found = self.propagation
        return self.with_propagation(replace(found, counted=[*found.counted, *uneven])).regroup()

    def _is_even(self, axis: Axis) -> bool:
        """Return whether all units of each group have equally many indices in an axis."""
        parts = self.parts
        units = parts.unit_of[axis.nodes]
        units = units[units >= 0]
        groups = np.unique(parts.group_of[units])
        counts = np.bincount(units, minlength=parts.group_of.size)
        inside = counts[np.isin(parts.group_of, groups)]
        sizes = parts.sizes[groups]
        return bool((inside == np.repeat(counts[_first_units(parts)[groups]], sizes)).all())

    def without_outputs(self) -> Trial:
        """Return the trial of the groups that there would be if no output of the model counted."""
        texts = self.coupling.axes.reasons.texts
        outputs = tuple(-n - 1 for n, text in enumerate(texts) if text.startswith(OUTPUT))
        other = replace(self, lifted=outputs)
        other.__dict__['expected'] = self.expected
        return other.regroup()

    def with_propagation(self, propagation: Propagation) -> Trial:
        """Return the trial of the same tape with the groups of another propagation."""
        other = replace(self, propagation=propagation)
        other.__dict__['expected'] = self.expected
        return other

    def is_needless(self, repairs: Repairs) -> bool:
        """Return whether no trial can fail, given the repairs that rules have noted."""
        widths = self.coupling.tally.widths
        return is_independent(self.stand_ins, self.tape, self.handlers, widths, repairs)

    def groups_of(self, axis: Axis) -> set[int]:
        """Return the numbers of the groups that have channels in an axis."""
        return set(self.parts.groups_of(axis))

    def rounds(self) -> range:
        """Return the numbers of the rounds in which a cut is tried.

        There are more rounds if code slices windows, because it may compute their bounds from a
        width, as in ``channels // 2``. Such bounds are right for some widths only. So there are if
        two widths are the same by chance in those before.
        """
        if any(self.groups_of(axis) for axis in self.expected.windowed):
            return range(_MOST_ROUNDS)
        count, owned = count_rounds(self.parts.sizes), self.propagation.owned
        kept = [choose_units(self.parts, None, number) for number in range(count)]
        while len(kept) < _MOST_ROUNDS and has_coincidence(owned, self.parts, kept):
            kept.append(choose_units(self.parts, None, len(kept)))
        return range(len(kept))

    def choose_widths(self, round_number: int, groups: Iterable[int] | None = None) -> Widths:
        """Return the widths of a round in which ``groups``, by default all, are cut."""
        kept = choose_units(self.parts, groups, round_number)
        return Widths(self.coupling, self.parts, kept, round_number, self.propagation.owned)

    def choose_former_widths(self) -> Widths:
        """Return widths with which groups are as wide as those of the next smaller size were."""
        kept = choose_units(self.parts, None, 0, former=True)
        return Widths(self.coupling, self.parts, kept, 0, self.propagation.owned)

    def run(self, widths: Widths, repairs: Repairs) -> Failure | None:
        """Run the forward pass on cut stand-ins.

        Args:
            widths: which indices stay.
            repairs: the attributes of modules to set for the run.

        Returns:
            The first difference from the expected trace; None if there is none.
        """
        check = TraceCheck(self.expected, self.stand_ins, widths)
        return self._run(check, repairs, contextlib.nullcontext())

    def find_reads(self, widths: Widths, repairs: Repairs) -> Reads:
        """Run the forward pass as :meth:`run` does, and return the numbers of modules it reads.

        Args:
            widths: which indices stay.
            repairs: the attributes of modules to set for the run.
        """
        check = TraceCheck(self.expected, self.stand_ins, widths)
        check.takes_leaves = False  # the reads of layers are those of torch's own code
        log = ReadLog(
            self.stand_ins.modules,
            self.expected.numbers,
            lambda: check.begun,
            lambda: self.stand_ins.path,
        )
        self._run(check, repairs, log.active())
        return log.found

    def _run(
        self,
        check: TraceCheck,
        repairs: Repairs,
        watching: contextlib.AbstractContextManager[None],
    ) -> Failure | None:
        failure = self._pass(check, repairs, watching)
        if failure is None:
            self._note_scaling(check, repairs)
        return failure

    def _pass(
        self,
        check: TraceCheck,
        repairs: Repairs,
        watching: contextlib.AbstractContextManager[None],
    ) -> Failure | None:
        widths = check.widths
        parameters = self._cut_parameters(widths)
        changed = {
            name: tensor.shape
            for name, tensor in parameters.items()
            if tensor is not self.tape.parameters[name]
        }
        modules = self.stand_ins.modules
        outputs = [tensor for _, tensor in self.tape.outputs]
        with self.stand_ins.with_tensors(self.tape.parameters, training=False):
            try:
                set_attributes(modules, widths.attributes(repairs))
                resize_layers(modules, self.stand_ins.by_layer(changed), self.handlers)
                self.stand_ins.swap(parameters)
                with watching:
                    output = run_forward(
                        self.stand_ins.model, self.tape.example_inputs, self.tape.backend, check
                    )
                check.compare_outputs(outputs, [tensor for _, tensor in tensors_in(output)])
            except Exception as error:
                return check.describe(error)
        return None

    def _note_scaling(self, check: TraceCheck, repairs: Repairs) -> None:
        """Note the channels by whose number code scales: without one of them, the others change."""
        noted = {(id(axis), operation) for axis, operation in self.coupling.mixed}
        for operation, ratio in check.renumbered.items():
            near = self._scaled_by(self.expected.axes_about(operation), ratio, check.widths)
            found = near or self._scaled_by(self.expected.distinct_axes, ratio, check.widths)
            if not found and not any(
                operation is other and self.groups_of(axis) for axis, other in self.coupling.mixed
            ):
                found = self._renumbering(operation, check.widths, repairs)
            for axis in found:
                if (id(axis), operation) not in noted:
                    self.coupling.mixed.append((axis, operation))

    def _renumbering(self, operation: Operation, widths: Widths, repairs: Repairs) -> list[Axis]:
        """Return an axis of each group with which alone an operation gets another number."""

        def among(groups: Sequence[int]) -> list[int]:
            chosen = self.choose_widths(widths.round_number, groups)
            check = TraceCheck(self.expected, self.stand_ins, chosen)
            self._pass(check, repairs, contextlib.nullcontext())
            if operation not in check.renumbered:
                return []
            middle = len(groups) // 2
            if not middle:
                return list(groups)
            return among(groups[:middle]) + among(groups[middle:])

        axes = (*self.expected.axes_about(operation), *self.expected.distinct_axes)
        return [
            next(axis for axis in axes if group in self.groups_of(axis))
            for group in among(range(len(self.parts.sizes)))
        ]

    def _scaled_by(self, axes: Sequence[Axis], ratio: float, widths: Widths) -> list[Axis]:
        """Return the axes of which a power of the width changes by a ratio, given its logarithm."""
        found = []
        for axis in dict.fromkeys(axes):
            width = widths(axis)
            power = ratio / math.log(width / axis.size) if 0 < width < axis.size else 0.0
            if any(math.isclose(abs(power), each, rel_tol=1e-6) for each in _POWERS):
                found.append(axis)
        return found

    def _cut_parameters(self, widths: Widths) -> dict[str, Tensor]:
        parameters = {}
        for name, tensor in self.tape.parameters.items():
            cut = tensor
            for dim, axis in enumerate(self.coupling.axes.of_parameter(name) or ()):
                if widths(axis) == axis.size:
                    continue
                if self.tape.backend.has_values:
                    kept = torch.from_numpy(np.flatnonzero(widths.stays[axis.ids]))
                    cut = cut.index_select(dim, kept.to(cut.device))
                else:
                    shape = list(cut.shape)
                    shape[dim] = widths(axis)
                    # Without values on any device: fake tensors stay fake.
                    make = torch.empty if cut.is_meta else cut.new_empty
                    cut = make(shape, dtype=cut.dtype, device=cut.device)
            parameters[name] = cut
        return parameters

    def find_at_fault(self, failure: Failure, repairs: Repairs) -> set[int]:
        """Return the groups that cause a failure, found by bisection.

        Suspects are the groups that have channels in the failing operation, or else all. A group
        whose cut fails later is not at fault: a repair or a tie may still help there.
        """
        axes = self.expected.axes[failure.operation] if failure.operation is not None else []
        suspects = {group for axis in axes for group in self.groups_of(axis)}
        suspects = suspects or set(range(len(self.parts.sizes)))
        return self._bisect(sorted(suspects), failure, repairs) or suspects

    def _bisect(self, groups: Sequence[int], failure: Failure, repairs: Repairs) -> set[int]:
        """Return the groups that fail alone; if none does, all of them if they fail together."""
        if not groups or self._gets_past(failure, groups, repairs):
            return set()
        if len(groups) == 1:
            return set(groups)
        middle = len(groups) // 2
        first, second = (
            self._bisect(half, failure, repairs) for half in (groups[:middle], groups[middle:])
        )
        return first | second or set(groups)

    def _gets_past(self, failure: Failure, groups: Sequence[int], repairs: Repairs) -> bool:
        """Return whether the pass gets past a failing operation if only some groups are cut."""
        found = self.run(self.choose_widths(failure.round_number, groups), repairs)
        return progress_of(found) > failure.position


def _first_units(parts: Partition) -> Ids:
    """Return the number of the first unit of each group. Units are numbered group by group."""
    return np.cumsum(parts.sizes) - parts.sizes
