"""What a sweep varies, in Hydra's own words: a,b,c  choice(a,b)  range(1,10)  interval(0,1)  tag(log,interval(1e-4,1e-1)).

See https://hydra.cc/docs/advanced/override_grammar/extended/.
"""

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from src.errors import UserError


def name(override: Override) -> str:
    """The setting that is varied."""
    return override.get_key_element()


def typed(override: Override) -> str:
    """As it is typed. Hydra's type allows for nothing; its parser does not."""
    if override.input_line is None:
        raise TypeError(f"{override} was not typed.")
    return override.input_line


def is_interval(override: Override) -> bool:
    """Whether it has more values than can be listed."""
    return override.is_interval_sweep()


def check(override: Override) -> None:
    """Raises a UserError unless there is something in it."""
    swept, written = override.value(), typed(override)
    if isinstance(swept, IntervalSweep):
        low, high = ends(swept)
        if low > high:
            raise UserError(f"{written} begins above its end; type {name(override)}={_with_tags(swept, high, low)}.")
        if "log" in swept.tags and low <= 0:
            raise UserError(f"{written} cannot be searched on a logarithmic scale, which has no {low}; begin above 0.")
    elif (isinstance(swept, RangeSweep) and swept.step == 0) or not values(override):
        raise UserError(
            f"{written} holds no value; type {name(override)}=<one>,<another>, or a range that rises, like range(1,9)."
        )


def values(override: Override) -> list[str]:
    """Those that can be listed, as they are typed; of an interval its two ends."""
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        return [repr(end) for end in ends(swept)]
    return list(override.sweep_string_iterator())


def ends(swept: IntervalSweep) -> tuple[float, float]:
    """The two ends of an interval. Hydra's types allow for none; its grammar does not."""
    if swept.start is None or swept.end is None:
        raise TypeError(f"{swept} has no end.")
    return swept.start, swept.end


def _with_tags(swept: IntervalSweep, low: float, high: float) -> str:
    inner = f"interval({low},{high})"
    return f"tag({','.join(sorted(swept.tags))},{inner})" if swept.tags else inner
