"""What a file of masks says, in the form that the reader of every format returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from easypruner.graph import ChannelGraph, Masks

CONFLICTS = ('error', 'keep')
"""If coupled layers disagree on a unit: raise an error, or keep the unit."""

WHICH = ('l1', 'first')
"""Which channels stay where a file says only how many: those of the largest L1 norms, or the first.
"""


@dataclass(frozen=True)
class How:
    """How a file is applied to a network.

    Attributes:
        conflict: a name of :data:`CONFLICTS`.
        which: a name of :data:`WHICH`.
    """

    conflict: str = 'error'
    which: str = 'l1'


class MaskContent(Protocol):
    """What a file of masks says.

    Attributes:
        kind: what the file is, for messages.
        only_widths: whether it says how many channels stay, but not which.
    """

    kind: ClassVar[str]
    only_widths: ClassVar[bool]

    @property
    def names(self) -> Collection[str]:
        """The names of layers or parameters; none if they cannot be renamed."""

    def renamed(self, names: Mapping[str, str]) -> MaskContent:
        """Return the same for other names: old -> new."""

    def fit(self, graph: ChannelGraph, earlier: Masks, how: How) -> Masks:
        """Return the masks of groups that the earlier ones and this file make together.

        Args:
            graph: the channel graph of the network before ``earlier``.
            earlier: the masks of groups that were applied before.
            how: how the file is applied.

        Raises:
            MaskError: the file does not fit the network that ``earlier`` leaves.
        """


@dataclass(frozen=True)
class GroupMasks:
    """Masks of groups, as EasyPruner writes them.

    Attributes:
        masks: the masks.
    """

    masks: Masks
    kind: ClassVar[str] = 'masks of groups, which EasyPruner wrote'
    only_widths: ClassVar[bool] = False

    @property
    def names(self) -> Collection[str]:
        return ()

    def renamed(self, names: Mapping[str, str]) -> GroupMasks:
        return self

    def fit(self, graph: ChannelGraph, earlier: Masks, how: How) -> Masks:
        return earlier.then(self.masks)
