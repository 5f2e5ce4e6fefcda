"""Every population of the simulated sky, by name."""

from broker.apps.simulator import shapes
from broker.apps.simulator.population import (
    PERSISTENT,
    Change,
    Population,
    artefact,
    draw_asteroid,
    draw_cosmic_ray,
    draw_dipole,
    draw_nucleus,
    draw_parametric,
    draw_stellar_burst,
    draw_type_ia,
    draw_variable,
    parametric_type_ia,
    sunlight,
    transient_light,
    varying,
)

Range = tuple[float, float]
Ranges = dict[str, Range]

# Temperatures in K, times in days.
_COOLING: Ranges = {"hot": (9000.0, 14000.0), "cool": (4800.0, 5600.0), "cooling": (15.0, 30.0)}
_BLUE: Ranges = {"hot": (14000.0, 22000.0), "cool": (12000.0, 14000.0), "cooling": (50.0, 90.0)}
_FLAT: Ranges = {"plateau": (70.0, 100.0), "slope": (0.001, 0.005)}
_SHARP: Ranges = {"plateau": (5.0, 12.0), "slope": (0.01, 0.03)}
_SLOW: Ranges = {"plateau": (15.0, 30.0), "slope": (0.0, 0.01)}
_BURST: Ranges = {
    "slope": (0.0, 0.1),
    "hot": (9000.0, 12000.0),
    "cool": (7000.0, 8000.0),
    "cooling": (3.0, 8.0),
}

# Class: days, absolute magnitude and its scatter, rise, fall, shape and colour.
_EXPLOSIONS: dict[str, tuple[int, Range, Range, Range, Ranges]] = {
    "SNII": (150, (-17.0, 0.8), (1.5, 3.0), (15.0, 30.0), _FLAT | _COOLING),
    "SNIbc": (90, (-17.5, 0.7), (2.5, 4.5), (18.0, 28.0), _SHARP | _COOLING),
    "SLSN": (200, (-21.3, 0.5), (8.0, 14.0), (40.0, 70.0), _SLOW | _BLUE),
    "TDE": (200, (-19.8, 0.7), (5.0, 10.0), (40.0, 90.0), _SLOW | _BLUE),
}
# Class: days, delay within the first, rise, fall, plateau.
_BURSTS: dict[str, tuple[int, Range, Range, Range, Range]] = {
    "CV": (40, (0.0, 1.0), (0.3, 0.8), (3.0, 7.0), (0.5, 3.0)),
    "flare": (1, (0.0, 0.4), (0.005, 0.05), (0.05, 0.3), (0.01, 0.1)),
}
# Class: relative amplitude, period or timescale, temperature.
_VARIABLES: dict[str, tuple[Range, Range, Range]] = {
    "RRLyrae": ((0.2, 0.5), (0.3, 0.8), (6200, 7200)),
    "Cepheid": ((0.15, 0.4), (2.0, 40.0), (5200, 6300)),
    "LPV": ((0.3, 0.8), (90.0, 500.0), (3000, 3600)),
    "EB": ((0.2, 0.6), (0.3, 8.0), (4800, 7500)),
    "YSO": ((0.1, 0.4), (2.0, 20.0), (3600, 4800)),
}
_SHAPES = {"EB": shapes.eclipse, "YSO": shapes.random_walk}
_NO_SUPERNOVA = ("TDE",)


def populations(type_ia: Change = parametric_type_ia) -> dict[str, Population]:
    """Return all populations by name.

    Parameters
    ----------
    type_ia : callable, optional
        Light curves of type Ia supernovae.
    """
    ours = Population("SNIa", "supernova", "transient", 90, draw_type_ia, type_ia)
    found = (ours, *_explosions(), *_bursts(), *_variables(), *_single())
    return {one.name: one for one in found}


def _explosions() -> list[Population]:
    return [
        Population(
            name,
            "transient" if name in _NO_SUPERNOVA else "supernova",
            "transient",
            life,
            draw_parametric(absolute, rise=rise, fall=fall, **ranges),
            transient_light,
        )
        for name, (life, absolute, rise, fall, ranges) in _EXPLOSIONS.items()
    ]


def _bursts() -> list[Population]:
    return [
        Population(
            name,
            "transient",
            "star",
            life,
            draw_stellar_burst(delay=delay, rise=rise, fall=fall, plateau=plateau, **_BURST),
            transient_light,
        )
        for name, (life, delay, rise, fall, plateau) in _BURSTS.items()
    ]


def _variables() -> list[Population]:
    stars = [
        Population(
            name,
            "variable",
            "star",
            PERSISTENT,
            draw_variable(*ranges),
            varying(_SHAPES.get(name, shapes.pulsation)),
        )
        for name, ranges in _VARIABLES.items()
    ]
    light = varying(shapes.random_walk)
    return [*stars, Population("AGN", "nucleus", "nucleus", PERSISTENT, draw_nucleus, light)]


def _single() -> list[Population]:
    return [
        Population("asteroid", "moving", "moving", 1, draw_asteroid, sunlight, True),
        Population("dipole", "bogus", "dipole", 1, draw_dipole, artefact, True),
        Population("cosmic_ray", "bogus", "spot", 1, draw_cosmic_ray, artefact, True),
    ]
