"""The pages: their links lead somewhere, the navigation has them all, and the site is built."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOP = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')
PAGES = [ROOT / name for name in TOP] + sorted((ROOT / 'docs').rglob('*.md'))


@pytest.fixture(scope='module')
def markdown() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'docs')
        yield importlib.import_module('markdown_links')


def dead_links(page: Path, markdown: ModuleType) -> list[str]:
    """Return the relative links of a page that lead to no file, or to no heading of a page."""
    dead = []
    for link in markdown.links_of(page.read_text(encoding='utf-8')):
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        there = target.exists()
        if there and anchor:
            there = anchor in markdown.anchors_of(target.read_text(encoding='utf-8'))
        dead += [] if there else [link]
    return dead


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path, markdown: ModuleType) -> None:
    assert dead_links(page, markdown) == []


def test_a_dead_link_is_found(tmp_path: Path, markdown: ModuleType) -> None:
    page = tmp_path / 'page.md'
    page.write_text(
        '# A `head`, of *it*\n[a](#a-head-of-it) [b](page.md#gone) [c](gone.md) [d](https://gone)\n'
        '```\n[e](in_a_block.md)\n```\n[f](#gone)\n'
    )
    assert dead_links(page, markdown) == ['page.md#gone', 'gone.md', '#gone']


def test_links_are_changed_outside_of_blocks(markdown: ModuleType) -> None:
    text = '[a](b.md)\n```\n[a](b.md)\n```\n[a](https://b.md) ![a](b.md "title")\n'
    expected = '[a](c)\n```\n[a](b.md)\n```\n[a](https://b.md) ![a](c "title")\n'
    assert markdown.with_links(text, lambda _: 'c') == expected


def entries_of(navigation: list[Any]) -> Iterator[str]:
    for entry in navigation:
        if isinstance(entry, dict):
            for inner in entry.values():
                yield from entries_of(inner)
        else:
            yield entry


def test_the_navigation_has_every_page() -> None:
    settings = yaml.safe_load((ROOT / '.mkdocs.yml').read_text(encoding='utf-8'))
    entries = set(entries_of(settings['nav']))
    assert {'index.md', 'CONTRIBUTING.md', 'CHANGELOG.md'} <= entries
    names = [page.relative_to(ROOT / 'docs').as_posix() for page in PAGES[len(TOP) :]]
    folders = tuple(entry for entry in entries if entry.endswith('/'))
    assert [name for name in names if name not in entries and not name.startswith(folders)] == []


def mkdocs(site: Path) -> subprocess.CompletedProcess[str]:
    for module in ('mkdocs', 'material', 'mkdocstrings'):
        pytest.importorskip(module)
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-f', ROOT / '.mkdocs.yml']
    return subprocess.run([*command, '-d', site], capture_output=True, text=True, check=False)


def test_the_site_is_not_built_inside_the_repository() -> None:
    done = mkdocs(ROOT / 'site')
    assert done.returncode == 1 and 'add -d FOLDER' in done.stderr
    assert not (ROOT / 'site').exists()


@pytest.mark.slow
def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = mkdocs(tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {file.relative_to(tmp_path).as_posix(): file for file in tmp_path.rglob('*.html')}
    assert {'index.html', 'strategies/Macs/index.html', 'code/plugins/macs.py/index.html',
            'reference/easypruner/index.html', 'CHANGELOG/index.html'} <= set(pages)  # fmt: skip
    for page, file in pages.items():
        text = file.read_text(encoding='utf-8')
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(?:https?:)?//', text)
        assert loaded == [], page
    for file in tmp_path.rglob('*.css'):
        assert not re.search(r'url\(\W?(?:https?:)?//', file.read_text(encoding='utf-8'))
    reference = pages['reference/easypruner/index.html'].read_text(encoding='utf-8')
    assert 'id="easypruner.trace"' in reference and 'id="easypruner.regularize"' in reference
    assert not any(file.is_file() for file in tmp_path.rglob('*.py'))
