"""A vote among coupled layers, counted by hand."""

from __future__ import annotations

from hypothesis import strategies as st

UNITS = 5
GROUPS = ('a', 'b', 'c')

scores_of_layers = st.integers(1, 4).flatmap(
    lambda count: st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=UNITS, max_size=UNITS),
        min_size=count,
        max_size=count,
    )
)


def layers_of_groups() -> st.SearchStrategy[dict[str, list[list[float]]]]:
    """Generate group -> the scores of its layers."""
    return st.fixed_dictionaries(dict.fromkeys(GROUPS, scores_of_layers))


def units_outvoted(layers: list[list[float]], threshold: float) -> set[int]:
    """Return the units removed, straight from the rule: at least i votes, i as large as it goes."""
    asked = [{u for u, score in enumerate(layer) if score <= threshold} for layer in layers]
    fewest = min(len(units) for units in asked)
    for needed in range(len(layers), 0, -1):
        outvoted = {
            u for u in range(len(layers[0])) if sum(u in units for units in asked) >= needed
        }
        if len(outvoted) >= fewest:
            return outvoted
    raise AssertionError('every unit asked for has at least one vote')
