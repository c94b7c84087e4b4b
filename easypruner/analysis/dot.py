"""The wiring of a network as a Graphviz file."""

from __future__ import annotations

from easypruner.analysis.wiring import Wiring, colour
from easypruner.report.text import literal_text

_GREY, _LIGHT = '#d9d9d9', 0.85


def dot(wiring: Wiring, title: str) -> str:
    """Return a Graphviz document with a node for each layer.

    An edge goes from each layer that makes channels to each layer that reads them. A dotted edge
    goes to each layer that carries channels on, such as a batch norm. A layer has the colour of the
    group whose channels it makes. A frozen layer is grey, with the reason as its tooltip.
    """
    lines = [
        'digraph network {',
        f'  graph [label={_quoted(title)}, labelloc=t, rankdir=TB, fontname="sans-serif"];',
        '  node [shape=box, style=filled, fillcolor=white, fontname="sans-serif"];',
    ]
    for number, layer in enumerate(wiring.layers):
        shape = ' x '.join(map(str, layer.shape))
        label = _quoted(layer.path or '(the model itself)', f'{layer.kind} {shape}')
        made = wiring.made_by(number)
        fill, tip = 'white', layer.path
        if layer.frozen:
            fill, tip = _GREY, f'frozen: {layer.frozen}'
        elif made is not None:
            fill, tip = colour(made, _LIGHT), f'group {wiring.threads[made].group}'
        lines.append(f'  n{number} [label={label}, fillcolor="{fill}", tooltip={_quoted(tip)}];')
    for number, thread in enumerate(wiring.threads):
        tip = _quoted(f'{thread.group}: {thread.units} units')
        for source, target, part in thread.edges():
            style = ', style=dotted, arrowhead=none' if part == 'carries' else ''
            stroke = colour(number)
            lines.append(f'  n{source} -> n{target} [color="{stroke}", tooltip={tip}{style}];')
    return '\n'.join([*lines, '}', ''])


def _quoted(*lines: str) -> str:
    r"""Return lines of text as a quoted string of Graphviz, in which \ and & are escaped."""
    texts = (literal_text(line).plain.replace('\n', ' ').replace('&', '&amp;') for line in lines)
    return '"' + '\\n'.join(t.replace('\\', r'\\').replace('"', r'\"') for t in texts) + '"'
