"""A page as one HTML file: its style, its head, its sections. It has no script, loads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from easypruner.report.markup import escape

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--paper:#fff;--line:#d1d9e0;
--c0:#0072b2;--c1:#c04f00;--c2:#00805d;--c3:#a8487f;--c4:#8a5d00;--c5:#2a7fb0;--kept:#0072b2;
--removed:#e69f00}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa5b1;--paper:#0f1419;
--line:#37414c;--c0:#56b4e9;--c1:#ff8c42;--c2:#2fd3a5;--c3:#e79cc8;--c4:#f0b93a;--c5:#9ad1f2;
--kept:#56b4e9;--removed:#e69f00}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:16px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.25rem;margin:1.8em 0 .4em}
h3{font-size:1.05rem;margin:1.3em 0 .3em}a{color:var(--c0)}
nav a{display:inline-block;padding:6px 12px 6px 0}
p,li{max-width:75ch}.soft{color:var(--soft);font-size:.9rem}
.note{border-left:4px solid var(--removed);padding:2px 10px;margin:6px 0}
.wide{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;margin:6px 0}
th,td{padding:4px 12px 4px 0;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top;overflow-wrap:normal}td:not(.n){max-width:18em;
overflow-wrap:break-word}td:first-child{min-width:9em}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:16px}
figure{margin:0}figcaption{font-size:.9rem;color:var(--soft)}
svg{width:100%;max-width:520px;height:auto;font:11px system-ui,sans-serif}
svg text{fill:var(--ink)}svg line,svg polyline{stroke:var(--ink);fill:none}
svg .grid{stroke:var(--line)}svg .level{stroke:var(--soft);stroke-dasharray:4 3}
svg .dot{opacity:.55}rect.kept,.bar .kept{fill:var(--kept);background:var(--kept);opacity:.8}
rect.removed,.bar .removed{fill:var(--removed);background:var(--removed);opacity:.8}
.legend{list-style:none;padding:0;margin:6px 0;display:flex;flex-wrap:wrap;gap:2px 16px}
.legend svg{width:14px;height:14px;vertical-align:-2px;margin-right:5px}
.bars{display:grid;grid-template-columns:minmax(8em,auto) minmax(4em,1fr) auto;gap:3px 10px;
font-size:.85rem;align-items:center;max-width:800px}
.bar{display:flex;height:12px}.bar i{display:block;height:100%}
details{border:1px solid var(--line);border-radius:6px;padding:6px 12px;margin:8px 0}
summary{cursor:pointer;padding:4px 0}pre{overflow-x:auto;max-width:100%;padding:10px;
border:1px solid var(--line);border-radius:6px;font-size:.85rem}img{max-width:100%}
.better{color:var(--c2)}.worse{color:var(--c1)}
""" + ''.join(
    f'svg .c{n}{{fill:var(--c{n});stroke:var(--c{n})}}svg polyline.c{n}{{fill:none;'
    'stroke-width:2}'
    for n in range(6)
)  # fmt: skip
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        name: its heading.
        body: its content as HTML.
    """

    name: str
    body: str


def make_page(title: str, intro: str, sections: Iterable[Section]) -> str:
    """Return a page with a table of contents.

    Args:
        title: the title, as text.
        intro: what stands before the sections, as HTML.
        sections: the sections; those without a body are left out.
    """
    shown = [section for section in sections if section.body]
    links = ''.join(f'<a href="#s{n}">{escape(s.name)}</a>' for n, s in enumerate(shown))
    bodies = ''.join(
        f'<section id="s{n}"><h2>{escape(s.name)}</h2>{s.body}</section>'
        for n, s in enumerate(shown)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f'<title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f'<body><h1>{escape(title)}</h1>{intro}<nav>{links}</nav>{bodies}</body></html>\n'
    )
