"""Where simulations find model data: the broker's own folder, or the user's."""

import os
from collections.abc import Mapping
from pathlib import Path

from broker.apps.simulator.cadence import cadence_of
from broker.apps.simulator.population import Change
from broker.config import Settings
from broker.surveys import Survey

_USERS_FOLDER = "SNCOSMO_DATA_DIR"


def light_for(
    kind: str, survey: Survey, settings: Settings, environ: Mapping[str, str] = os.environ
) -> Change:
    """Return the light curves of type Ia supernovae in a survey's bands.

    Parameters
    ----------
    kind : str
        One of ``auto``, ``salt2``, ``toy`` and ``parametric``.
    survey : Survey
        Whose bands.
    settings : Settings
        Gives the folders of model data and of tables.
    environ : mapping
        The environment, which may name a folder of model data of the user's own.
    """
    from broker.apps.simulator.supernovae import type_ia_light  # imports sncosmo's engine
    from broker.science.fitters.salt2.models import ModelStore

    users = environ.get(_USERS_FOLDER)
    store = ModelStore(settings.home_path / "models", Path(users) if users else None)
    return type_ia_light(kind, cadence_of(survey), store, settings.cache_path / "salt2")
