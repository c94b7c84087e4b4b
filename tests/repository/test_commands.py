"""The commands of the README and the docs: options are parsed, files exist, and they run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.config import Config

from easypruner.cli.main import _parser, main
from easypruner.testing import tiny_config

from .test_code_blocks import PAGES, ROOT, blocks_of

OTHERS = {'pip', 'pytest', 'pre-commit', 'git', 'mkdir', 'cp', 'tensorboard', 'mkdocs'}
"""Programs whose options are not checked."""
LAUNCHERS = {'torchrun', 'srun', 'mpirun'}
_INLINE = re.compile(r'`((?:easypruner|python|torchrun|srun|mpirun) [^`]+)`')


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a text of commands, or of ``$ `` commands and output."""
    lines = text.replace('\\\n', ' ').splitlines()
    if lines and lines[0].startswith('$ '):
        lines = [line[2:] for line in lines if line.startswith('$ ')]
    for line in lines:
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), '&&']:
            if word == '&&':
                yield words
                words = []
            elif words or not re.match(r'\w+=', word):  # without variables of the environment
                words.append(word)


def commands_on(page: Path) -> list[list[str]]:
    """Return the commands of a page: those of its blocks, and those between backticks."""
    text = page.read_text(encoding='utf-8')
    blocks = blocks_of(text)
    found = [
        words
        for block in blocks
        if block.language in ('', 'bash')
        for words in commands_of(block.text)
    ]
    for block in blocks:
        text = text.replace(block.text, '')
    found += [
        words for code in _INLINE.findall(text) for words in commands_of(' '.join(code.split()))
    ]
    return [words for words in found if words]


def arguments_of(words: list[str]) -> list[str] | None:
    """Return the arguments of ``easypruner`` in a command, or None if it runs something else.

    Raises:
        ValueError: the program is not known.
    """
    if words[0] in OTHERS:
        return None
    if words[0] in LAUNCHERS:
        number = next(i for i, w in enumerate(words) if w in ('easypruner', 'tools/prune.py'))
        words = words[number:] if words[number] == 'easypruner' else ['python', *words[number:]]
    if words[0] == 'easypruner':
        return words[1:]
    if words[0] == 'tools/dist_prune.sh':
        return ['prune', words[1], *words[3:]]
    if words[0] == 'tools/slurm_prune.sh':
        return ['prune', words[3], '--work-dir', words[4], *words[5:]]
    if words[0] == 'python' and not (ROOT / words[1]).is_file():
        raise ValueError(f'there is no {words[1]}')
    if words[0] == 'python':
        command = re.search(r"main\(\['([\w-]+)'", (ROOT / words[1]).read_text(encoding='utf-8'))
        return [command[1], *words[2:]] if words[1].startswith('tools/') and command else None
    raise ValueError(f'an unknown command: {shlex.join(words)}')


def check_options(arguments: list[str]) -> None:
    """Exit with code 2 if the options are wrong. A command alone is only a mention of it."""
    if len(arguments) > 1 and '--help' not in arguments:
        _parser().parse_args(arguments)
        return
    with pytest.raises(SystemExit, match=r'^0$'):
        _parser().parse_args([*arguments, '--help'])


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_are_parsed_and_files_exist(page: Path) -> None:
    for words in commands_on(page):
        arguments = arguments_of(words)
        if arguments is not None:
            check_options(arguments)
        for word in words:
            if re.fullmatch(r'(?:configs|tools|docs|benchmarks)/\S+\.\w+', word):
                assert (ROOT / word).is_file(), words


def test_there_are_commands() -> None:
    assert sum(len(commands_on(page)) for page in PAGES) > 40


def test_mistakes_are_found() -> None:
    ((*words,),) = commands_of('PYTHONPATH=. easypruner prune x.py --sed 1  # a comment')
    with pytest.raises(SystemExit):
        check_options(arguments_of(words))
    with pytest.raises(ValueError, match='unknown command'):
        arguments_of(['easyprune', 'prune'])
    with pytest.raises(ValueError, match='no tools/gone'):
        arguments_of(['python', 'tools/gone.py'])
    assert list(commands_of('$ a b\noutput\n$ c \\\n  d && e')) == [['a', 'b'], ['c', 'd'], ['e']]


def section(page: str, name: str) -> list[list[str]]:
    """Return the arguments of the commands in the blocks of a section."""
    text = (ROOT / page).read_text(encoding='utf-8')
    blocks = [block for block in blocks_of(text) if block.section == name]
    found = [
        arguments_of(words)
        for block in blocks
        if block.language in ('', 'bash')
        for words in commands_of(block.text)
    ]
    return [arguments for arguments in found if arguments is not None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which has the config that the pages name."""
    monkeypatch.chdir(tmp_path)
    source = dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))
    stages = [
        dict(type='Train', name='baseline', epochs=1, row='baseline'),
        dict(type='SelectMask', source=source),
        dict(type='Prune'),
        dict(type='Report'),
    ]
    Config(tiny_config(stages)).dump(tmp_path / 'my_config.py')
    return tmp_path


def test_the_first_commands_of_the_page_on_plugins(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in section('docs/plugins.md', 'Start with a file that works'):
        assert main(arguments) == 0
    assert (folder / 'my_plugins' / 'reader_norm.py').is_file()
    for arguments in section('docs/plugins.md', 'A mask source in 30 lines'):
        more = ['--plan'] if arguments[0] == 'prune' else []
        assert main([*arguments, *more]) == 0
    assert 'ReaderNorm' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('name', ['The command', 'Seeds', 'Interruptions'])
def test_the_commands_of_the_page_on_running(name: str, folder: Path) -> None:
    if name == 'Interruptions':
        assert main(['prune', 'my_config.py']) == 0
    for arguments in section('docs/running.md', name):
        assert main(arguments) == 0, arguments


@pytest.mark.slow
def test_the_commands_for_many_gpus_have_a_plan(folder: Path) -> None:
    content = Config.fromfile(folder / 'my_config.py')
    content.auto_scale_lr = dict(base_batch_size=256)
    content.dump(folder / 'my_config.py')
    for number, arguments in enumerate(section('docs/running.md', 'Many GPUs')):
        if '--launcher' in arguments:
            place = arguments.index('--launcher')
            del arguments[place : place + 2]
        assert main([*arguments, '--plan', '--overwrite']) == 0, number


@pytest.mark.slow
def test_the_analysis_on_the_readme_is_what_is_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    (shown,) = (b.text for b in blocks_of(text) if b.section == 'Analyze a network')
    (arguments,) = section('README.md', 'Analyze a network')
    assert main(arguments) == 0
    printed = {line.strip() for line in capsys.readouterr().out.splitlines()}
    lines = [line.strip() for line in shown.splitlines()[1:]]
    missing = [line for line in lines if line not in ('...', '') and line not in printed]
    assert missing == []
