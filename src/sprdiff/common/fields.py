"""Fields of frozen dataclasses that are also options of the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any

KEY = "option"
"""The key of a field's metadata: an `OptionInfo`, or None if the field's own fields are options."""


@dataclass(frozen=True)
class OptionInfo:
    """How the command line shows a field.

    Attributes:
        help: the help text.
        flag: the option's name, or several with spaces between; None: the field's name with dashes.
        argument: whether the field is a positional argument.
        metavar: the word for the value in the help.
        low, high: the smallest and the largest value.
        positive: whether only finite numbers above zero are allowed.
        panel: the heading in the help under which the option stands.
        read: a function that makes the field's value from the texts on the command line, for an option that
            may be repeated.
    """

    help: str
    flag: str | None = None
    argument: bool = False
    metavar: str | None = None
    low: float | None = None
    high: float | None = None
    positive: bool = False
    panel: str | None = None
    read: Callable[[list[str]], Any] | None = None


def option(help: str, default: Any = MISSING, factory: Any = MISSING, **shown: Any) -> Any:
    """Return a field that the command line shows; the other arguments are those of `OptionInfo`."""
    metadata = {KEY: OptionInfo(help, **shown)}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def options(default: Any) -> Any:
    """Return a field that holds a frozen dataclass, whose own fields the command line shows."""
    return field(default=default, metadata={KEY: None})
