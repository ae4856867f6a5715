"""Commands that take a frozen dataclass: every field that `common.fields` describes becomes an option."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from ..common.fields import KEY, Shown
from .options import between

T = TypeVar("T")


def takes(kind: type[T]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a command of a function whose first argument is an object of a dataclass.

    The function's further parameters are options of their own, as typer has them.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        own = _own_parameters(command)
        shown = [*_parameters(kind), *own]
        # Required parameters must come before those with a default.
        shown.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)

        @functools.wraps(command)
        def run(**given: Any) -> int:
            rest = {parameter.name: given.pop(parameter.name) for parameter in own}
            return command(_filled(kind, given), **rest)

        vars(run)["__signature__"] = inspect.Signature(shown)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return run

    return decorate


def _own_parameters(command: Callable[..., int]) -> list[inspect.Parameter]:
    """Return the parameters of a command after its first one, with their annotations evaluated."""
    hints = get_type_hints(command, include_extras=True)
    _, *own = inspect.signature(command).parameters.values()
    only = inspect.Parameter.KEYWORD_ONLY
    return [parameter.replace(annotation=hints[parameter.name], kind=only) for parameter in own]


def _parameters(kind: type) -> Iterator[inspect.Parameter]:
    """Yield a parameter for every shown field, those of nested dataclasses included."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        if KEY not in field.metadata:
            continue
        if field.metadata[KEY] is None:
            yield from _parameters(hints[field.name])
        else:
            yield _parameter(field, hints[field.name], field.metadata[KEY])


def _parameter(field: Field[Any], hint: Any, shown: Shown) -> inspect.Parameter:
    required = field.default is MISSING and field.default_factory is MISSING
    default = inspect.Parameter.empty if required else field.default
    if shown.read is not None or get_origin(hint) is Sequence:  # an option that may be repeated
        hint = list[str if shown.read is not None else _plain(get_args(hint)[0])]  # type: ignore[misc]
        hint, default = (hint, default) if required else (hint | None, None)
    if shown.argument:
        told: Any = typer.Argument(metavar=shown.metavar, help=shown.help)
    else:
        flags = (shown.flag or f"--{field.name.replace('_', '-')}").split()
        check = between(0, math.inf, open_low=True) if shown.positive else None
        told = typer.Option(
            *flags,
            help=shown.help,
            metavar=shown.metavar,
            min=shown.low,
            max=shown.high,
            callback=check,
            rich_help_panel=shown.panel,
        )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=Annotated[hint, told])


def _plain(hint: Any) -> Any:
    """Return the type as which the command line reads a value; it is a text if it may be several things."""
    if get_origin(hint) in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not NoneType]
        return parts[0] if len(parts) == 1 else str
    return hint


def _filled(kind: type[T], given: Mapping[str, Any]) -> T:
    """Make the object and the objects inside it from the values of the command line."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if KEY not in field.metadata:
            continue
        shown, hint = field.metadata[KEY], hints[field.name]
        if shown is None:
            values[field.name] = _filled(hint, given)
        elif shown.read is not None:
            values[field.name] = shown.read(given[field.name] or [])
        elif get_origin(hint) is Sequence:
            values[field.name] = tuple(given[field.name] or ())
        else:
            values[field.name] = given[field.name]
    return kind(**values)
