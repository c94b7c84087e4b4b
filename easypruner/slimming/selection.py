"""The selection of slim(): masks, and the scores that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies import Context, MaskSource, Scores


@dataclass(frozen=True)
class Selection:
    """Masks and the scores that they come from.

    Attributes:
        masks: the masks, True = keep.
        scores: the scores that were ranked; None if the source has none, such as a search.
    """

    masks: Masks
    scores: Scores | None

    @classmethod
    def of(cls, source: MaskSource, graph: ChannelGraph, context: Context) -> Selection:
        """Select masks.

        Args:
            source: a mask source of this call only, because it is changed.
            graph: the channel graph of the network.
            context: the context for the source.
        """
        recorded: list[Scores] = []
        rank = source.ranking_scores

        def recording(graph: ChannelGraph, context: Context) -> Scores:
            recorded.append(rank(graph, context))
            return recorded[-1]

        # The choice of a search depends on more than its scores.
        if type(source).select is MaskSource.select:
            source.ranking_scores = recording  # type: ignore[method-assign]
        masks = source.select(graph, context)
        return cls(masks, recorded[-1] if recorded else None)

    @property
    def level(self) -> float | None:
        """The score of all units if all scores are equal, else None."""
        scores = (self.scores or {}).values()
        values = {float(end) for score in scores for end in (score.min(), score.max())}
        return values.pop() if len(values) == 1 else None

    def kept_share(self, masks: Mapping[str, Tensor]) -> float | None:
        """Return the share of all scores that the kept units of masks have.

        It is None if a score is below 0: then a share says nothing.
        """
        if not self.scores or any(bool((score < 0).any()) for score in self.scores.values()):
            return None
        total = sum(float(score.double().sum()) for score in self.scores.values())
        kept = sum(
            float(score.double()[masks[name]].sum()) if name in masks else float(score.sum())
            for name, score in self.scores.items()
        )
        return kept / total if total > 0 else None
