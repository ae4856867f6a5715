"""Commands that take a frozen dataclass: every field that `common.fields` describes becomes an option."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from ..common.fields import KEY, OptionInfo

T = TypeVar("T")


def takes(command: Callable[..., int]) -> Callable[..., int]:
    """Make a command of a function: a parameter that is a dataclass becomes an option for each of its fields.

    The function's other parameters are options of their own, as typer has them.
    """
    hints = get_type_hints(command, include_extras=True)
    shown: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    own: list[str] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            shown += _parameters(hints[name])
        else:
            own.append(name)
            shown.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
    # Required parameters must come before those with a default.
    shown.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)

    @functools.wraps(command)
    def run(**given: Any) -> int:
        objects: dict[str, Any] = {name: _filled(kind, given) for name, kind in groups.items()}
        return command(**objects, **{name: given[name] for name in own})

    vars(run)["__signature__"] = inspect.Signature(shown)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


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


def _parameter(field: Field[Any], hint: Any, shown: OptionInfo) -> inspect.Parameter:
    required = field.default is MISSING and field.default_factory is MISSING
    default = inspect.Parameter.empty if required else field.default
    if shown.read is not None or get_origin(hint) is Sequence:  # an option that may be repeated
        hint = list[str if shown.read is not None else _plain(get_args(hint)[0])]  # type: ignore[misc]
        hint, default = (hint, default) if required else (hint | None, None)
    if shown.argument:
        told: Any = typer.Argument(metavar=shown.metavar, help=shown.help)
    else:
        flags = (shown.flag or f"--{field.name.replace('_', '-')}").split()
        told = typer.Option(
            *flags,
            help=shown.help,
            metavar=shown.metavar,
            min=shown.low,
            max=shown.high,
            callback=_positive if shown.positive else None,
            rich_help_panel=shown.panel,
        )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=Annotated[hint, told])


def _positive(value: float | None) -> float | None:
    """Refuse what is not a finite number above zero."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value:g} is not above 0")
    return value


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
