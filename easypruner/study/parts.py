"""A part of a study: some of its methods, seeds and budgets, to be run before the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from easypruner.errors import Mistakes, nearest
from easypruner.study.study_file import Study


@dataclass(frozen=True)
class Part:
    """Which methods, seeds and budgets of a study are run; an empty list means all.

    Attributes:
        only: names of methods.
        seeds: seeds.
        budgets: the shares to keep of the budgets.
    """

    only: Sequence[str] = ()
    seeds: Sequence[int] = ()
    budgets: Sequence[float] = ()

    def of(self, study: Study) -> Study:
        """Return a study that has only this part.

        Raises:
            ConfigError: the study has not one of them; the message lists all of these.
        """
        names = [method.name for method in study.methods]
        shares = [budget.get('keep') for budget in study.budgets if budget is not None]
        mistakes = Mistakes()
        for name in self.only:
            if name not in names:
                mistakes.add(f'--only {name}: the study has no such method; {nearest(name, names)}')
        for seed in self.seeds:
            if seed not in study.seeds:
                known = ', '.join(map(str, study.seeds))
                mistakes.add(f'--seeds {seed}: the study has the seeds {known}')
        for share in self.budgets:
            if share not in shares:
                known = ', '.join(f'{each:g}' for each in shares if isinstance(each, int | float))
                has = f'budgets of {known}' if known else 'no budgets that name a share to keep'
                mistakes.add(f'--budgets {share:g}: the study has {has}')
        mistakes.raise_all()
        return replace(
            study,
            methods=tuple(m for m in study.methods if not self.only or m.name in self.only),
            seeds=tuple(seed for seed in study.seeds if not self.seeds or seed in self.seeds),
            budgets=tuple(
                budget
                for budget in study.budgets
                if not self.budgets or (budget is not None and budget.get('keep') in self.budgets)
            ),
        )
