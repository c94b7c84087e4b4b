"""Forms: how a penalty can act, and which form holds under which optimizer."""

from __future__ import annotations

from dataclasses import dataclass

from easypruner.errors import ConfigError
from easypruner.strategies.regularizers.schedule import Response

FORMS = ('gradient', 'proximal')
"""How a penalty can act; see :class:`easypruner.Regularizer`."""
RAISE_RATES = (
    'raise the learning rate of what it pushes, as with '
    "optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'bn': dict(lr_mult=20)}))"
)
"""What to do if an optimizer moves parameters by at most their learning rate."""


@dataclass(frozen=True)
class Kind:
    """What the form of a regularizer depends on.

    Attributes:
        owner: the name of the regularizer.
        selects: whether training decides which values go to zero.
        shrinks: whether its gradient is a factor times the weight.
    """

    owner: str
    selects: bool
    shrinks: bool

    def check_form(self, apply: str | None, optimizer: Response) -> None:
        """Raise ConfigError if the form that was chosen does not hold under an optimizer."""
        if apply == 'proximal' and self.selects and optimizer.adaptive:
            raise ConfigError(
                f"apply='proximal' of {self.owner}, which leaves to the training what goes to "
                f'zero. {optimizer.name} divides the gradient of the loss by its own magnitude, so '
                'a threshold overrules the loss everywhere or nowhere; leave apply out, give the '
                f'strength as a number, and {RAISE_RATES}'
            )
        if apply == 'gradient' and self.shrinks and optimizer.adaptive:
            raise ConfigError(
                f"apply='gradient' of {self.owner}, whose gradient is a factor times the weight. "
                f'{optimizer.name} divides it by its own magnitude, so the factor has no effect; '
                "leave apply out, or set apply='proximal'"
            )

    def refuse_reach(self, strength: str, optimizer: Response) -> None:
        """Raise ConfigError for a reach that a gradient should have under an adaptive optimizer."""
        instead = f'give a number, and {RAISE_RATES}' if self.selects else "set apply='proximal'"
        raise ConfigError(
            f'strength={strength} of {self.owner} cannot be met by a gradient: {optimizer.name} '
            'divides it by its own magnitude, so the distance does not depend on the strength; '
            f'{instead}'
        )


def check_closes_loop(owner: str, selects: bool, strength: str, apply: str | None) -> None:
    """Raise ConfigError if a closed loop cannot raise the strength of a regularizer.

    Args:
        owner: the name of the regularizer.
        selects: whether training decides which values go to zero.
        strength: the strength as it was given, for the message.
        apply: the form that was chosen.
    """
    if selects:
        raise ConfigError(
            f'strength={strength} of {owner}, which leaves to the training what goes to zero, so '
            'it cannot wait until all values do; give a number or dict(reach=number), or use a '
            'regularizer that pushes only what masks remove'
        )
    if apply == 'gradient':
        raise ConfigError(
            f"strength={strength} of {owner} needs apply='proximal': under a gradient, parameters "
            'move around zero, the further the higher the strength'
        )
