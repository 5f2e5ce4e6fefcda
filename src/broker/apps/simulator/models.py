"""Where simulations take supernovae from, and fit them with, also where model data is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from broker.apps.simulator.cadence import cadence_of, can_simulate
from broker.apps.simulator.population import Change
from broker.errors import ConfigError
from broker.science.fitters.salt2.models import ModelStore, pinned
from broker.wiring import Broker


@dataclass(frozen=True)
class StandInModels(ModelStore):
    """Model data in which something of the same form stands in for what is missing.

    A small model stands in for a published one, and a passband with smooth edges for a
    measured one, so that simulated supernovae can be drawn and fitted without any data.

    Parameters
    ----------
    edges : mapping
        Passband to the wavelengths of half transmission, in Angstrom.
    scratch : Path
        Folder of the small model.
    """

    edges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    scratch: Path = Path()

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return which pinned items of some names are not at hand."""
        return [name for name in names if name in pinned() and not self._has(name)]

    def source(self, name: str) -> Any:
        """Return the sncosmo source of a pinned model, or the small one.

        Raises
        ------
        ConfigError
            If no model of this name is pinned.
        """
        from broker.science.fitters.salt2.toy import toy_source

        return toy_source(self.scratch) if self.missing([name]) else super().source(name)

    def bandpasses(self, names: Sequence[str]) -> list[Any]:
        """Return sncosmo bandpasses, with smooth edges where the measured one is missing.

        Raises
        ------
        ConfigError
            If one is not pinned.
        """
        from broker.science.fitters.salt2.toy import toy_bandpasses

        absent = [name for name in self.missing(names) if name in self.edges]
        smooth = toy_bandpasses({name: self.edges[name] for name in absent})
        measured = super().bandpasses([name for name in names if name not in absent])
        found = {band.name: band for band in (*measured, *smooth)}
        return [found[name] for name in names]

    def fingerprint(self, names: Sequence[str]) -> str:
        """Return a digest of the data; empty where something stands in for it."""
        return "" if self.missing(names) else super().fingerprint(names)

    def _has(self, name: str) -> bool:
        try:
            self.path(name)
        except ConfigError:
            return False
        return True


@dataclass(frozen=True)
class SimulationBroker(Broker):
    """A broker of simulated alerts: it fits them also where model data is missing."""

    @cached_property
    def models(self) -> StandInModels:
        """Model data, the user's own first, and what stands in for what is missing."""
        own = Broker(self.settings).models
        bands = cadence_of(self.survey).bands if can_simulate(self.survey) else ()
        edges = {band.passband: band.edges for band in bands}
        scratch = self.settings.cache_path / "toy" / "toy"
        return StandInModels(own.root, own.environ_dir, edges, scratch)

    def stand_ins(self) -> list[str]:
        """Name the model data that something stands in for."""
        return self.models.missing([self.settings.salt2_model, *self.passbands()])


def light_for(kind: str, broker: Broker) -> Change:
    """Return the light curves of type Ia supernovae in the bands of a broker's survey.

    Parameters
    ----------
    kind : str
        One of ``auto``, ``salt2``, ``toy`` and ``parametric``.
    broker : Broker
        Gives the survey, and the model that its own fits use.
    """
    from broker.apps.simulator.supernovae import type_ia_light  # imports the fast engine

    cache = broker.settings.cache_path / "toy"
    owner = broker if kind == "salt2" else SimulationBroker(broker.settings)
    return type_ia_light(kind, cadence_of(broker.survey), owner.source_tables, cache)
