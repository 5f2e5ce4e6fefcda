"""Where simulations take the light curves of type Ia supernovae from."""

from broker.apps.simulator.cadence import cadence_of
from broker.apps.simulator.population import Change
from broker.wiring import Broker


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
    return type_ia_light(kind, cadence_of(broker.survey), broker.source_tables, cache)
