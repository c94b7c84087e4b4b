"""Which test runs each code block of the README and the docs.

``TESTED`` has every Python block, except those of the pages in ``WHOLE`` and of the cards. Commands
are tested by ``test_commands.py``, and blocks of the language ``text`` are output.
"""

from __future__ import annotations

HERE = 'run here'
"""Stands for test_code_blocks.py, which runs a section's blocks after those before on the page."""

_GRAPH = 'tests/graph/test_channel_graph_page.py'
_CARDS = 'tests/repository/test_cards.py'
_DOCS = 'tests/repository/test_docs.py'
_PROGRAMS = f'{_GRAPH}::test_each_program_prints_what_the_page_says'
_README = 'tests/repository/test_readme.py'
_SIGNATURE = f'{_DOCS}::test_each_hook_is_on_the_page'

CARD = {
    'In a config': [f'{_CARDS}::test_the_config_runs'],
    'Without a run': [f'{_CARDS}::test_the_code_runs'],
}
"""The blocks of each page in docs/strategies."""

WHOLE = {
    'docs/checkpoints.md': 'tests/repository/test_checkpoints_page.py',
    'docs/detectors.md': 'tests/repository/test_detectors_page.py',
    'docs/example_pitch.md': 'tests/repository/test_pitch_page.py',
    'docs/export.md': 'tests/repository/test_export_page.py',
    'docs/masks_from_elsewhere.md': 'tests/repository/test_masks_from_elsewhere_page.py',
    'docs/mmpretrain.md': 'tests/repository/test_mmpretrain_page.py',
    'docs/own_loop.md': 'tests/repository/test_own_loop.py',
    'docs/quantization.md': 'tests/repository/test_quantization_page.py',
}
"""Page -> the file of tests that runs all its blocks, whichever they are."""

TESTED: dict[str, dict[str, list[str]]] = {
    'README.md': {
        'Prune in one line': [f'{_README}::test_the_example_in_one_line', HERE],
        'Prune in your own code': [f'{_README}::test_the_api_example', HERE, HERE],
        'A config': [HERE],
        'A plugin in 30 lines': [f'{_README}::test_the_plugin_example'],
    },
    'docs/channel-graph.md': {
        'From a forward pass to groups': [HERE],
        'What may go': [HERE],
        'Look before you cut': [_PROGRAMS],
        'Layer handlers': [HERE],
        'A rule for an operation': [_PROGRAMS, _PROGRAMS],
        'The rule': [_PROGRAMS, _PROGRAMS],
        'A rule that counts MACs': [_PROGRAMS, _PROGRAMS, _PROGRAMS],
        'How to find a wrong count of MACs': [_PROGRAMS],
    },
    'docs/latency.md': {'Widths': [HERE]},
    'docs/plugins.md': {
        'A mask source in 30 lines': [f'{_DOCS}::test_the_example_is_short_and_works', HERE],
        'A budget': [f'{_DOCS}::test_the_other_examples_work'],
        'A regularizer': [f'{_DOCS}::test_the_other_examples_work', HERE],
        'A stage': [
            f'{_DOCS}::test_the_other_examples_work',
            f'{_DOCS}::test_a_stage_may_use_the_forecast_as_the_page_says',
        ],
        'A transform': [f'{_DOCS}::test_the_other_examples_work'],
        'A runtime': [f'{_DOCS}::test_the_other_examples_work'],
        'A layer handler': [f'{_DOCS}::test_the_other_examples_work'],
        'An optimizer handler': [f'{_DOCS}::test_the_example_of_an_optimizer_handler_works'],
        'Where plugins are found': [HERE],
        '`easypruner_components`': [_SIGNATURE],
        '`easypruner_configure_runner`': [_SIGNATURE],
        '`easypruner_report`': [_SIGNATURE],
    },
    'docs/transformers.md': {'Prune, save, load': [HERE], 'What it cannot say': [HERE]},
    'docs/comparing.md': {
        'Comparing methods': [
            'tests/report/test_study_report.py::test_work_directories_without_a_study'
        ],
    },
    'docs/running.md': {'Logs and TensorBoard': [HERE]},
    'docs/study.md': {
        'Studies': ['tests/study/test_study_file.py::test_the_example_of_the_page'],
        'A method of your own': ['tests/study/test_study_file.py::test_the_example_with_a_plugin'],
        'Tuning': ['tests/study/test_study_file.py::test_the_example_of_tuning'],
        'Where a grid is not enough': [
            'tests/study/test_study_file.py::test_the_example_of_a_search'
        ],
    },
    'docs/your_data.md': {
        'In a config': [f'{_DOCS}::test_the_example_of_a_data_set_trains_a_network'] * 2,
        'Images in folders': [HERE],
        'Without MMEngine': [HERE, HERE],
    },
    'docs/your_model.md': {
        'A network that you have': [HERE, HERE],
        'timm': [HERE],
        'Hugging Face': [HERE],
        'What can be pruned, and what stays': [HERE],
        'In a config': [f'{_DOCS}::test_the_examples_of_a_model_are_trained_and_pruned'] * 4,
    },
}
"""Page -> section -> what runs each of its Python blocks, in their order."""
