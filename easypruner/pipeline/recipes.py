"""Recipes: the stages of a method as a fragment of a config, which fits any other config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easypruner.engine.foreign_configs import own_folders
from easypruner.errors import ConfigError, nearest

if TYPE_CHECKING:
    from mmengine.config import Config

_FOLDER = '_recipes_'
_BASELINE = 'baseline'


def shipped_recipes() -> dict[str, Path]:
    """Return name -> path of each shipped recipe."""
    files = (file for folder in own_folders() for file in sorted((folder / _FOLDER).glob('*.py')))
    return {file.stem: file for file in files if not file.stem.startswith('__')}


def find_recipe(name: str) -> Path:
    """Return the path of a recipe.

    Args:
        name: a path, or the name of a shipped recipe, such as ``masksparsity``.

    Raises:
        ConfigError: there is no such recipe.
    """
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if path.is_file():
        return path
    hint = nearest(path.stem, shipped)
    known = '' if hint.startswith('known') else f' Known names: {", ".join(shipped)}'
    raise ConfigError(
        f'there is no recipe {name!r}; expected a path or the name of a shipped one; {hint}{known}'
    )


def read_keep(text: str, option: str) -> float:
    """Return the share to keep that an option gives, as ``0.5`` or ``50%``.

    Raises:
        ConfigError: it is not a share above 0 and below 1.
    """
    number, percent = text.removesuffix('%'), text.endswith('%')
    try:
        keep = float(number) / (100 if percent else 1)
    except ValueError:
        keep = 0.0
    if not 0 < keep < 1:
        raise ConfigError(
            f'{option} {text}: expected the share to keep, above 0 and below 1, such as 0.5 or 50%'
        )
    return keep


@dataclass(frozen=True)
class Recipe:
    """What the command line adds to a config.

    Attributes:
        file: the file of the recipe; None keeps the stages of the config.
        budgets: the budgets of all mask sources; if there are none, the stages keep theirs.
    """

    file: Path | None = None
    budgets: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str | None, macs: str | None, params: str | None) -> Recipe:
        """Return what the options ask for.

        Args:
            name: the name or path of the recipe.
            macs: the share of the MACs to keep.
            params: the share of the parameters to keep.
        """
        given = (('Macs', '--macs', macs), ('Params', '--params', params))
        budgets = tuple(
            {'type': kind, 'keep': read_keep(text, option)}
            for kind, option, text in given
            if text is not None
        )
        return cls(None if name is None else find_recipe(name), budgets)

    def complete(
        self, config: Config, options: Mapping[str, Any], load_from: str | None = None
    ) -> Config:
        """Return a config with the stages and budgets.

        Args:
            config: the config.
            options: ``--cfg-options``, which are applied later.
            load_from: the checkpoint of ``--load-from``, or None.

        Raises:
            ConfigError: the recipe has no stages, or no stage selects masks.
        """
        # MMEngine is slow to import, and --help has to be fast.
        from easypruner.engine.config import config_of_file
        from easypruner.engine.pretrained import starts_trained

        if self.file is not None:
            content = config_of_file(self.file).to_dict()
            if not content.get('stages'):
                raise ConfigError(
                    f'the recipe {str(self.file)!r} has no stages; expected '
                    'stages = [dict(type=...), ...]'
                )
            given = load_from or options.get('load_from') or options.get('load_from.checkpoint')
            trained = given is not None or starts_trained(config)
            content['stages'] = [_started(stage, trained) for stage in content['stages']]
            config.merge_from_dict(content)
        if self.budgets:
            self._set_budgets(config)
        return config

    def _set_budgets(self, config: Config) -> None:
        stages = config.to_dict().get('stages') or []
        sources = list(_sources(stages))
        if not sources:
            kinds = ' and '.join(str(budget['type']) for budget in self.budgets)
            raise ConfigError(
                f'the budget {kinds} has no effect, because no stage of the config selects masks; '
                'add a recipe: --recipe masksparsity, or recipe=... in a study'
            )
        for source in sources:
            budgets = [dict(budget) for budget in self.budgets]
            source['budget'] = budgets if len(budgets) > 1 else budgets[0]
        config.merge_from_dict({'stages': stages})


def _started(stage: Any, trained: bool) -> Any:
    """Return a stage of a recipe; a network that is trained already is only evaluated first."""
    if trained and isinstance(stage, Mapping) and stage.get('name') == _BASELINE:
        return {'type': 'Evaluate', 'name': _BASELINE, 'row': stage.get('row', _BASELINE)}
    return stage


def _sources(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the mask sources in the stages of a config."""
    if isinstance(value, dict):
        if isinstance(value.get('source'), dict):
            yield value['source']
        for item in value.values():
            yield from _sources(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sources(item)
