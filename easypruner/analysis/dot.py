"""The wiring of a network as a Graphviz file."""

from __future__ import annotations

from easypruner.analysis.wiring import Wiring, colour
from easypruner.report.text import literal

_GREY, _LIGHT = '#d9d9d9', 0.85


def dot(wiring: Wiring, title: str) -> str:
    """Return Graphviz text: a node for each layer, an edge from each maker to each reader.

    Layers have the colour of the group whose channels they make; frozen ones are grey, with the
    reason as the tooltip. Dotted edges lead to layers that carry channels on, such as a batch norm.
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
    for place, thread in enumerate(wiring.threads):
        tip = _quoted(f'{thread.group}: {thread.units} units')
        for source, target, part in thread.edges():
            style = ', style=dotted, arrowhead=none' if part == 'carries' else ''
            lines.append(
                f'  n{source} -> n{target} [color="{colour(place)}", tooltip={tip}{style}];'
            )
    return '\n'.join([*lines, '}', ''])


def _quoted(*lines: str) -> str:
    r"""Return lines of text as a quoted string of Graphviz, which reads \ and & in its own way."""
    texts = (literal(line).plain.replace('\n', ' ').replace('&', '&amp;') for line in lines)
    return '"' + '\\n'.join(t.replace('\\', r'\\').replace('"', r'\"') for t in texts) + '"'
