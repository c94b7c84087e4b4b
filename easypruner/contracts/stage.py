"""Stage: one step of a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from easypruner.contracts.component import Component

if TYPE_CHECKING:
    from easypruner.pipeline.outlook import Outlook
    from easypruner.pipeline.state import PruningState


class Stage(Component):
    """One step of a run. Stages pass a PruningState on; everything heavy in it lies in files.

    Args:
        name: the stage's folder and its row's name; by default the class name in lower case.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).__name__.lower()

    @abstractmethod
    def run(self, state: PruningState) -> PruningState:
        """Do the step and return what the next stage starts from."""

    def foresee(self, outlook: Outlook) -> Outlook:
        """Raise what would stop this stage; return what the stages after it can count on.

        Called on every stage, in order, before a run starts.
        """
        return outlook

    def expand(self) -> Sequence[Mapping[str, Any]] | None:
        """Return the configs of the stages that this one stands for; None if it is one itself.

        A config's list of stages is expanded before anything else is done with it, so each of
        these is planned, run and resumed like any other.
        """
        return None

    def plan(self, state: PruningState) -> str:
        """Return one line that says what this stage will do; printed before a run starts."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
