"""Stage: one step of a run."""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from easypruner.errors import ConfigError
from easypruner.strategies.strategy import Strategy

if TYPE_CHECKING:
    from easypruner.strategies.stages.forecast import Forecast
    from easypruner.strategies.stages.state import PruningState


_WORDS = re.compile(r'(?<=[a-z0-9])(?=[A-Z])')
_NAME = re.compile(r'[\w.-]+')


class Stage(Strategy):
    """One step of a run. Stages pass a PruningState on; everything heavy in it lies in files.

    Args:
        name: the stage's folder, of letters, digits and any of ``_ . -``; by default the class
            name in lower case, with ``_`` between its words.
    """

    def __init__(self, name: str | None = None) -> None:
        own = type(self).__name__
        if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise ConfigError(
                f'name={name!r} of {own} is to be the name of a folder; expected letters, digits '
                'and any of _ . -'
            )
        self.name = name or self.default_name()

    @classmethod
    def default_name(cls) -> str:
        """Return the name of a stage that a config does not name: the default of its constructor.

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
        """Do the step and return what the next stage starts from."""

    def forecast(self, before: Forecast) -> Forecast:
        """Raise what would stop this stage; return what the stages after it can count on.

        Called on every stage, in order, before a run starts. What the stage itself does stands in
        the result's ``step``.

        Args:
            before: what the stages before it leave; its ``step`` does nothing.

        Raises:
            EasyPrunerError: the stage cannot do its work there.
        """
        return before

    def expand(self) -> Sequence[Mapping[str, Any]] | None:
        """Return the configs of the stages that this one stands for; None if it is one itself.

        A config's list of stages is expanded before anything else is done with it, so each of
        these is planned, run and resumed like any other.
        """
        return None

    def plan(self, state: PruningState) -> str:
        """Return one line that says what this stage will do; printed before a run starts."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
