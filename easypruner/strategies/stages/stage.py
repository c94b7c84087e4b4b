"""Stage: one step of a run."""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from easypruner.base.checks import check_text, refuse
from easypruner.strategies.strategy import Strategy

if TYPE_CHECKING:
    from easypruner.strategies.stages.forecast import Forecast
    from easypruner.strategies.stages.state import PruningState


_WORDS = re.compile(r'(?<=[a-z0-9])(?=[A-Z])')
_LONGEST_NAME = 100
_NAME = re.compile(rf'[\w.-]{{1,{_LONGEST_NAME}}}')


class Stage(Strategy):
    """One step of a run. Each stage passes a PruningState to the next; large data is in files.

    Args:
        name: the name of the stage and of its folder, made of letters, digits and ``_ . -``; by
            default the class name in lower case, with ``_`` between its words.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            expected = (
                f'up to {_LONGEST_NAME} letters, digits and any of _ . -, because it is the name '
                'of a folder'
            )
            refuse(name, 'name', type(self).__name__, expected)
        self.name = name or self.default_name()

    @classmethod
    def default_name(cls) -> str:
        """Return the name of a stage whose config has no name.

        >>> from easypruner.pipeline.stages import SelectMask
        >>> SelectMask.default_name()
        'select_mask'
        """
        named = inspect.signature(cls).parameters.get('name')
        if named is not None and isinstance(named.default, str):
            return named.default
        return _WORDS.sub('_', cls.__name__).lower()

    @abstractmethod
    def run(self, state: PruningState) -> PruningState:
        """Do the step, and return the state that the next stage starts from."""

    def forecast(self, before: Forecast) -> Forecast:
        """Return the forecast for the next stage; raise the errors that would stop this stage.

        It is called on every stage, in order, before a run starts. The result's ``step`` says what
        this stage does.

        Args:
            before: the forecast at this stage, with an empty ``step``.

        Raises:
            EasyPrunerError: the stage cannot do its work at this point of the run.
        """
        return before

    def expand(self) -> Sequence[Mapping[str, Any]] | None:
        """Return the configs of the stages that replace this one; None to keep it.

        A run replaces stages before anything else, so each of these is planned, run and resumed
        like any other stage.
        """
        return None

    def plan(self, state: PruningState) -> str:
        """Return one line that says what this stage will do. It is printed before a run starts."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]


class RowStage(Stage):
    """A stage that can evaluate its result, for a row of the final table.

    Args:
        row: the name of the result's row in the final table; None for no row.
        name: the name of the stage.
    """

    def __init__(self, row: str | None = None, name: str | None = None) -> None:
        super().__init__(name)
        self.row = check_text(row, 'row', type(self).__name__)
