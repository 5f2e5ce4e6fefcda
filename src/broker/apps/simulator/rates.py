"""How fast the consumer simulator publishes: rates, run times and the schedule they make."""

from dataclasses import dataclass
from math import ceil, floor, isfinite
from numbers import Real
from typing import Any, cast

from broker.apps.simulator.cadence import named_rates

Amount = tuple[float, str]

_HOUR_S = 3600.0
NIGHT_HOURS = 10
"""Length of a night in rates and run times."""

RATE_UNITS = {
    "perSec": 1.0,
    "perMin": 60.0,
    "perHr": _HOUR_S,
    "perNight": NIGHT_HOURS * _HOUR_S,
}
"""Seconds of each unit of a rate; ``once`` is all alerts in one batch."""

TIME_UNITS = {"sec": 1.0, "min": 60.0, "hr": _HOUR_S, "night": NIGHT_HOURS * _HOUR_S}
"""Seconds of each unit of a run time."""

_ONCE = "once"
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Schedule:
    """When how many alerts are due.

    Parameters
    ----------
    per_s : float
        Alerts a second.
    interval_s : float
        Time between batches.
    runtime_s : float
        Length of the run.
    total : int
        Alerts of the whole run.
    """

    per_s: float
    interval_s: float
    runtime_s: float
    total: int

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return max(ceil(self.runtime_s / self.interval_s - _ROUNDING), 1)

    def due(self, batch: int) -> int:
        """Return how many alerts are due with batch number `batch` (from 0) and all before.

        Fractions are carried: a rate below one a batch makes a batch of one now and then.
        """
        if batch + 1 >= self.batches:
            return self.total
        return min(floor(self.per_s * self.interval_s * (batch + 1) + _ROUNDING), self.total)


def make_schedule(
    alert_rate: Amount | str, runtime: Amount | None, publish_batch_every: Amount
) -> Schedule:
    """Make the schedule of a run.

    Parameters
    ----------
    alert_rate : tuple or str
        ``(n, unit)`` with a unit of `RATE_UNITS` or ``once``, or a named rate.
    runtime : tuple or None
        ``(n, unit)`` with a unit of `TIME_UNITS`; not needed with ``once``.
    publish_batch_every : tuple
        ``(n, "sec")``.

    Raises
    ------
    ValueError
        If a unit or name is not known, a number is not positive, or the run time is missing.
    """
    number, unit = resolve_rate(alert_rate)
    every, every_unit = _amount(publish_batch_every, "publish_batch_every", (5, "sec"))
    if every_unit != "sec":
        raise ValueError(f"publish_batch_every is in 'sec', not {every_unit!r}")
    if not every > 0:
        raise ValueError(f"publish_batch_every must be above 0 sec, not {every}")
    if unit == _ONCE:
        return Schedule(0.0, float(every), 0.0, int(number))
    if runtime is None:
        raise ValueError("runtime is required, e.g. (10, 'min'), unless the rate's unit is 'once'")
    length, length_unit = _amount(runtime, "runtime", (10, "min"))
    runtime_s = length * _seconds(length_unit, TIME_UNITS, "runtime")
    if not runtime_s > 0:
        raise ValueError(f"runtime must be above 0, not {length}")
    per_s = number / _seconds(unit, RATE_UNITS, "alert_rate")
    return Schedule(per_s, float(every), runtime_s, round(per_s * runtime_s))


def resolve_rate(alert_rate: Amount | str) -> Amount:
    """Return a rate as number and unit.

    Raises
    ------
    ValueError
        If a name or unit is not known, or the number is not positive.
    """
    if isinstance(alert_rate, str):
        known = named_rates()
        if alert_rate not in known:
            raise ValueError(f"unknown rate {alert_rate!r}; named are: {', '.join(sorted(known))}")
        return known[alert_rate]
    number, unit = _amount(alert_rate, "alert_rate", (100, "perMin"))
    if unit != _ONCE:
        _seconds(unit, RATE_UNITS, "alert_rate")
    elif number % 1:
        raise ValueError(f"alert_rate must be a whole number of alerts with 'once', not {number}")
    if not number > 0:
        raise ValueError(f"alert_rate must be above 0, not {number}")
    return number, unit


def _amount(value: Any, what: str, example: Amount) -> Amount:
    """Return number and unit of an argument."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    if not (is_pair and isinstance(value[0], Real) and isfinite(value[0])):
        raise ValueError(f"{what} must be a number and a unit, such as {example}; not {value!r}")
    return cast(Amount, tuple(value))


def _seconds(unit: str, known: dict[str, float], what: str) -> float:
    if unit not in known:
        units = ", ".join([*known, _ONCE] if known is RATE_UNITS else known)
        raise ValueError(f"unit of {what} must be one of {units}; not {unit!r}")
    return known[unit]
