"""The result of one model: what was measured, and whether it is handled and complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TOLERANCE, TOLERANCE_SINGLE = 1e-5, 1e-3
"""The relative errors that verification allows in double and in single precision."""

CAUSES = ('boundary', 'fixed', 'unused', 'unsupported')
_STARTS = {
    'boundary': ('an input of the model', 'an output of the model'),
    'fixed': (
        'a constant tensor',
        'a spatial, batch or sequence extent',
        'a table made in the forward pass',
        'a table of integers',
        'channels are read as positions: upsample',
        'channels are sorted',
        'channels are split into dimensions, of which this one keeps its size',
        'channels are taken apart one by one',
        'code reads the values',
        'coordinates of regions',
        'coordinates of samples',
        'entries are looked up by their position',
        'entries are written by their position',
        'has a single channel',
        'one channel is picked by its position',
        'positions of channels are used as values',
        'rotated by a right angle',
        'the channels within one group of a grouped convolution',
        'the diagonal of a square',
        'the extent of a convolution kernel',
        'the position of a channel is used as a value',
        'the triangle of a square',
    ),
    'unused': ('not used in the forward pass',),
}
"""Cause -> how the reasons for it begin. Any other reason counts as unsupported."""


@dataclass(frozen=True)
class Result:
    """The result of one model.

    Attributes:
        source: the library.
        name: the name of the model in the library.
        family: the family of which only this variant is measured.
        status: 'measured'; 'failed', with ``error``; 'timeout'; or 'unusable' if the model's own
            forward fails on the example inputs.
        error: the exception, and the step in which it was raised.
        kind: 'cnn' or 'other'.
        params: the number of parameters.
        seconds: the CPU seconds of the trace.
        own_seconds: the CPU seconds of the model's own forward on the same inputs.
        groups: the number of groups.
        prunable: the share of parameters that have a dimension in a group.
        neither: the number of channels that are neither in a group nor frozen, or counted twice.
        reasons: reason -> the number of dimensions that are frozen for it. Reasons have no numbers,
            so that layers share them.
        verify_error: the relative error of the verification; None if there was none.
        verified_on: the inputs of the verification: 'full'; 'small' for smaller images; 'single'
            for single precision, if the model's forward needs it; '' if there was none.
        unchecked: groups that the verification cannot check, because their channels are mixed.
        keeps_shapes: whether the pruned model runs and its outputs have the same shapes.
        costs: compared part of the cost ('macs before', 'params after', ...) -> whether the graph's
            number equals the measured one.
        shares: kind of structure -> (units, units that can go, their parameters, parameters that
            can go). Heads are those of a trace that removes heads.
        held: kind of structure -> reason -> the number of units that stay for it.
        heads_seconds: the CPU seconds of that trace; None if the model has no heads.
        heads_error: the relative error of its verification, None if there was none.
        counted_on: 'meta', or 'values' if the number of operations depends on values. In the second
            case, MACs after the cut cannot be predicted and are not compared.
    """

    source: str
    name: str
    family: str
    status: str
    error: str = ''
    kind: str = ''
    params: int = 0
    seconds: float = 0.0
    own_seconds: float = 0.0
    groups: int = 0
    prunable: float = 0.0
    neither: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    verify_error: float | None = None
    verified_on: str = ''
    unchecked: int = 0
    keeps_shapes: bool = False
    costs: Mapping[str, bool] = field(default_factory=dict)
    shares: Mapping[str, Sequence[int]] = field(default_factory=dict)
    held: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    heads_seconds: float | None = None
    heads_error: float | None = None
    counted_on: str = ''

    def frozen(self, cause: str) -> dict[str, int]:
        """Return reason -> number of frozen dimensions, for one cause."""
        return {why: count for why, count in self.reasons.items() if cause_of(why) == cause}

    @property
    def complete(self) -> bool:
        """Whether no dimension is unsupported: each is in a group, or the network freezes it."""
        return self.status == 'measured' and not self.frozen('unsupported') and not self.neither

    @property
    def tolerance(self) -> float:
        """Return the relative error that the verification allows."""
        return TOLERANCE if self.verified_on != 'single' else TOLERANCE_SINGLE

    @property
    def errors(self) -> tuple[float | None, float | None]:
        """The relative errors of the verifications, without and with whole heads."""
        return self.verify_error, self.heads_error

    @property
    def handled(self) -> bool:
        """Return whether all checks passed."""
        return (
            self.status == 'measured'
            and not self.neither
            and self.keeps_shapes
            and all(self.costs.values())
            and all(error is None or error < self.tolerance for error in self.errors)
        )


def cause_of(reason: str) -> str:
    """Return the cause for which a dimension is frozen, one of CAUSES.

    Reasons that do not come from the network itself count as unsupported.
    """
    return next(
        (cause for cause, starts in _STARTS.items() if reason.startswith(starts)), 'unsupported'
    )
