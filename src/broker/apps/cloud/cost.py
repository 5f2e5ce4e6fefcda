"""What an instance costs, from what its resources consume and what Google asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from broker.apps.cloud.registry import Resource

_UNITS = {"TiB": 2.0**40, "GiB": 2.0**30, "GiB-month": 2.0**30, "1000 operations": 1000.0}
"""Unit of a price -> bytes or operations in it; those of other units are counted as they are."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit costs.

    Parameters
    ----------
    words : str
        What is sold.
    unit : str
        By what it is counted.
    usd : float
        US dollars a unit.
    source, date : str
        Where it is told, and since when.
    """

    words: str
    unit: str
    usd: float
    source: str
    date: str


@dataclass(frozen=True, slots=True)
class Line:
    """What one resource consumes of one thing that is sold."""

    resource: Resource
    price: Price
    quantity: float

    @property
    def usd(self) -> float:
        """US dollars."""
        return self.quantity * self.price.usd


def cost(
    resources: Sequence[Resource], alerts: int = 1_000_000, **workload: float
) -> tuple[Line, ...]:
    """Say what an instance consumes and costs for a number of alerts.

    Parameters
    ----------
    resources : sequence of Resource
        What the instance is made of.
    alerts : int
        How many alerts.
    **workload
        Values in place of those of the price list's workload, such as ``alerts_a_night``.

    Returns
    -------
    tuple of Line
        A line a resource and thing sold, dearest first.
    """
    values = {name: float(it["value"]) for name, it in _data()["workload"].items()} | workload
    lines = [
        Line(it, price(use["price"]), _quantity(use, alerts, values))
        for it in resources
        for use in it.usage
    ]
    return tuple(sorted(lines, key=lambda it: -it.usd))


def price(name: str) -> Price:
    """Return a price by its name in the list."""
    return Price(**_data()["prices"][name])


def prices() -> tuple[Price, ...]:
    """Return the list of prices."""
    return tuple(price(name) for name in _data()["prices"])


def workload() -> Mapping[str, Mapping[str, Any]]:
    """Return the values and meanings of the quantities that costs are computed from."""
    found: dict[str, dict[str, Any]] = _data()["workload"]
    return found


def first_broker() -> tuple[float, str]:
    """Return what the first broker cost for a million alerts, and whose bills say so."""
    found = _data()["first_broker"]
    return float(found["usd_per_million"]), str(found["words"])


@cache
def _data() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        files("broker.apps.cloud").joinpath("prices.yaml").read_text()
    )
    # YAML reads a year and month as text, a whole date as one.
    for each in found["prices"].values():
        each["date"] = str(each["date"])
    return found


def _quantity(use: Mapping[str, Any], alerts: int, values: Mapping[str, float]) -> float:
    """Return how many units of its price a resource consumes."""
    nights = alerts / values["alerts_a_night"]
    for name in ("hours_a_night", "count_a_night"):
        if name in use:
            return nights * values[use[name]]
    if "months_a_night" in use:
        return nights * values[use["months_a_night"]] * float(use["gigabytes"])
    share = values.get(use["share"], values["other_filter"]) if "share" in use else 1.0
    each = sum(values[word] for word in use.get("bytes", ())) or float(use["count"])
    months = values[use["months"]] if "months" in use else 1.0
    return alerts * share * each * months / _UNITS[price(use["price"]).unit]
