"""Hooks of MkDocs: pages from files outside docs/, links to them, and the reference.

A link in the repository is one on the site: README.md is the index, and a file of code that a page
links to is a page that shows the code.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown_links import links_of, with_links
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference_pages import reference_pages

ROOT = Path(__file__).resolve().parent.parent
TOP = {'README.md': 'index.md'} | {name: name for name in ('CONTRIBUTING.md', 'CHANGELOG.md')}
"""File of the repository -> its page on the site."""
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yml': 'yaml', '.json': 'json'}
_TITLES = {'strategies/': 'Strategies', 'reference/': 'Packages'}
"""Folder in the navigation -> its title."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Refuse an output folder inside the repository."""
    site = Path(config.site_dir).resolve()
    if site == ROOT or ROOT in site.parents:
        raise PluginError(
            f'the site would be written to {site}, inside the repository; add -d FOLDER with a '
            'folder outside of it'
        )
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files in docs/, and fill in the navigation."""
    for name, page in TOP.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for target in sorted(set(_linked_code(files))):
        files.append(File.generated(config, page_of(target), content=_shown(target)))
    for page, text in reference_pages().items():
        files.append(File.generated(config, page, content=text))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = _filled(config.nav, pages)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Change the links of a page from those of the repository to those of the site."""
    origin = origin_of(page.file.src_uri)
    return with_links(markdown, lambda link: site_link(link, origin)) if origin else markdown


def origin_of(page: str) -> str | None:
    """Return the file of the repository that a page shows, or None if it was generated."""
    if page.startswith(('code/', 'reference/')):
        return None
    return {page: name for name, page in TOP.items()}.get(page, f'docs/{page}')


def site_link(link: str, origin: str) -> str:
    """Return the link that leads to the same place on the site.

    Args:
        link: a relative link.
        origin: the file that has the link.
    """
    path, hash_sign, anchor = link.partition('#')
    if not path:
        return link
    folder = posixpath.dirname(TOP.get(origin, origin.removeprefix('docs/')))
    target = page_of(in_repository(path, origin))
    return posixpath.relpath(target, folder or '.') + hash_sign + anchor


def in_repository(path: str, origin: str) -> str:
    """Return the file of the repository to which a link leads; that of a folder is its README."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    return f'{target}/README.md' if (ROOT / target).is_dir() else target


def page_of(target: str) -> str:
    """Return the page or file of the site that shows a file of the repository."""
    if target in TOP:
        return TOP[target]
    return target.removeprefix('docs/') if target.startswith('docs/') else f'code/{target}.md'


def _linked_code(files: Files) -> Iterator[str]:
    """Yield the files of code to which pages link."""
    for file in files.documentation_pages():
        origin = origin_of(file.src_uri)
        for link in links_of(file.content_string) if origin else ():
            target = in_repository(link.partition('#')[0], origin)
            if page_of(target).startswith('code/') and (ROOT / target).is_file():
                yield target


def _shown(target: str) -> str:
    """Return a page with the code of a file."""
    text = (ROOT / target).read_text(encoding='utf-8')
    language = LANGUAGES.get(Path(target).suffix, 'text')
    return f'# {target}\n\n`````{language}\n{text.rstrip()}\n`````\n'


def _filled(entries: list[Any], pages: list[str]) -> list[Any]:
    """Return the navigation with the pages of its folders.

    Args:
        entries: pages, folders (all their pages, the index first), and titles with entries.
        pages: all pages.
    """
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            found += [{title: _filled(inner, pages)} for title, inner in entry.items()]
        elif entry.endswith('/'):
            inside = [page for page in pages if page.startswith(entry)]
            inside.sort(key=lambda page: Path(page).name not in ('README.md', 'index.md'))
            found.append({_TITLES[entry]: inside})
        else:
            found.append(entry)
    return found
