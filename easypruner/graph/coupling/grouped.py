"""Grouped convolutions: which of them lose whole groups, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from easypruner.graph.coupling.axes import Axis


class GroupedConvolutions:
    """The grouped convolutions of a propagation.

    Each loses whole groups, or the same channels within each of its groups. Convolutions with one
    channel in a group, such as depthwise ones, have no such choice and are not among them.

    Attributes:
        within: weight -> the reason for which its convolution cannot lose whole groups.
        axes: weight -> the axis of the groups, one index for each, of a convolution that does.
        exist: whether there are any.

    Args:
        wholes: whether whole groups are wanted.
        within: as above.
    """

    def __init__(self, wholes: bool, within: Mapping[str, str]) -> None:
        self.within = within
        self.axes: dict[str, Axis] = {}
        self.exist = False
        self._wholes = wholes

    @property
    def option(self) -> str:
        """The option of a trace that is followed here."""
        return 'whole' if self._wholes else 'within'

    def takes_wholes(self, weight: str | None) -> bool:
        """Return whether the convolution with a weight loses whole groups.

        The groups of a weight that is not computed from a parameter may be samples of the batch.
        """
        self.exist |= weight is not None
        return self._wholes and weight is not None and weight not in self.within

    def note(self, weight: str, groups: Axis) -> None:
        """Note that a convolution loses whole groups, of which the axis has one index for each."""
        self.axes[weight] = groups

    def explain(self) -> Iterator[str]:
        """Yield a text for each convolution that should lose whole groups and cannot."""
        for weight, reason in self.within.items():
            module = weight.rpartition('.')[0] or 'the model itself'
            yield f'{module} loses channels within groups, because no whole group can go: {reason}'
