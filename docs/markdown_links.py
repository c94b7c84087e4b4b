"""Links, headings and fenced blocks of Markdown text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_FENCE = re.compile(
    r'^(?P<indent> *)(?P<fence>`{3,})(?P<language>\S*).*?\n(?P<text>.*?)^(?P=indent)(?P=fence) *$',
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r'(?<=\]\()(?![a-z]+:)([^()\s]+)(?=[)\s])')
_HEADING = re.compile(r'^#+ (.+?) *$', re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its heading, the number of its line, its language, and its text."""

    section: str
    line: int
    language: str
    text: str


def blocks_of(markdown: str) -> list[Block]:
    """Return the fenced blocks of a page, with the last heading before each."""
    found = []
    for match in _FENCE.finditer(markdown):
        before = without_blocks(markdown[: match.start()])
        section = (_HEADING.findall(before) or [''])[-1]
        line = markdown.count('\n', 0, match.start()) + 1
        text = re.sub(f'^{match["indent"]}', '', match['text'], flags=re.MULTILINE)
        found.append(Block(section, line, match['language'], text))
    return found


def without_blocks(markdown: str) -> str:
    """Return the text of a page without its fenced blocks."""
    return _FENCE.sub('', markdown)


def links_of(markdown: str) -> Iterator[str]:
    """Yield the links of a page that are relative, or anchors of the page itself."""
    yield from _LINK.findall(without_blocks(markdown))


def with_links(markdown: str, change: Callable[[str], str]) -> str:
    """Return a page whose relative links are changed; blocks stay as they are."""
    parts, end = [], 0
    for match in [*_FENCE.finditer(markdown), None]:
        start = match.start() if match else len(markdown)
        parts.append(_LINK.sub(lambda link: change(link[1]), markdown[end:start]))
        if match:
            parts.append(match[0])
            end = match.end()
    return ''.join(parts)


def anchors_of(markdown: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs write them."""
    found: set[str] = set()
    for heading in _HEADING.findall(without_blocks(markdown)):
        text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
        found.add(re.sub(r'[^\w -]', '', text).strip().lower().replace(' ', '-'))
    return found
