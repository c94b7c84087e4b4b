"""The check of a study that is resumed: its folder has runs of what the file declares now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from easypruner.base.json_fields import read_json
from easypruner.study.record import STUDY
from easypruner.study.runs import runs_of
from easypruner.study.study_file import Study
from easypruner.study.tuning import FOLDER, Tuned, trials_of, with_chosen
from easypruner.study.unchanged import check_unchanged, runs_of_other_code


def check_resumed(study: Study, folder: Path, console: Console) -> None:
    """Check that the runs and trials in the folder of a study still have the settings of its file.

    Args:
        study: the whole study.
        folder: its folder.
        console: prints a warning for runs that began with other files of the plugins.

    Raises:
        EasyPrunerError: some have other settings, which the message names.
    """
    if not (folder / STUDY).is_file():
        return
    known = _with_known_values(study, folder)
    check_unchanged(runs_of(trials_of(study)), folder / FOLDER)
    check_unchanged(runs_of(known), folder)
    other = runs_of_other_code(runs_of(known), folder)
    if other:
        console.print(
            f'warning: the files of the plugins have changed since these runs began: '
            f'{"; ".join(other)}; their results are those of the old files, unless you remove '
            f'their folders in {str(folder / "runs")!r}, and they run again',
            style='yellow',
            markup=False,
            highlight=False,
        )


def _with_known_values(study: Study, folder: Path) -> Study:
    """Return a study with the values that trials have chosen before, without what they have not.

    The runs of a method begin after its trials, so without chosen values there are none.
    """
    listed = read_json(folder / STUDY)['tuned'].value
    keys = {m.name: m.tune.keys for m in study.methods if m.tune is not None}
    chosen = [
        Tuned(entry['method'], entry['budget'], entry['key'], entry['value'], ())
        for entry in listed
        if keys.get(entry['method']) in (entry['key'], [entry['key']])
    ]
    found = with_chosen(study, chosen)
    return replace(found, methods=tuple(m for m in found.methods if m.tune is None or m.chosen))
