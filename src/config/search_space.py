"""Sweep overrides, in Hydra's grammar: a,b,c  choice(a,b)  range(1,10)  interval(0,1)  tag(log,interval(1e-4,1e-1)).

See https://hydra.cc/docs/advanced/override_grammar/extended/.
"""

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from src.errors import UserError


def name(override: Override) -> str:
    """The setting that is varied."""
    return override.get_key_element()


def as_typed(override: Override) -> str:
    """The override as it was typed. Hydra's annotation includes None; its parser always sets it."""
    if override.input_line is None:
        raise TypeError(f"{override} was not typed.")
    return override.input_line


def is_interval(override: Override) -> bool:
    """Whether it is an interval of real numbers, whose values cannot be listed."""
    return override.is_interval_sweep()


def validate(override: Override) -> None:
    """Raise a UserError if it is empty, or an interval on a logarithmic scale that is not positive."""
    swept, typed = override.value(), as_typed(override)
    if isinstance(swept, IntervalSweep):
        low, high = ends(swept)
        if low > high:
            raise UserError(f"{typed} begins above its end; type {name(override)}={_with_tags(swept, high, low)}.")
        if "log" in swept.tags and low <= 0:
            raise UserError(f"{typed} cannot be searched on a logarithmic scale, which has no {low}; begin above 0.")
    elif (isinstance(swept, RangeSweep) and swept.step == 0) or not values(override):
        raise UserError(
            f"{typed} holds no value; type {name(override)}=<one>,<another>, or a range that rises, like range(1,9)."
        )


def values(override: Override) -> list[str]:
    """Its values, as they are typed; of an interval the two ends."""
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        return [repr(end) for end in ends(swept)]
    return list(override.sweep_string_iterator())


def ends(swept: IntervalSweep) -> tuple[float, float]:
    """The two ends of an interval. Hydra's annotation includes None; its grammar does not."""
    if swept.start is None or swept.end is None:
        raise TypeError(f"{swept} has no end.")
    return swept.start, swept.end


def _with_tags(swept: IntervalSweep, low: float, high: float) -> str:
    inner = f"interval({low},{high})"
    return f"tag({','.join(sorted(swept.tags))},{inner})" if swept.tags else inner
