"""The Pitt-Google alert broker; `import broker` is cheap, names load when first used."""

from importlib import import_module

__version__ = "1.0.0.dev0"

_HOMES = {
    "Alert": "broker.alerts.alert",
    "BrokerError": "broker.errors",
    "Instance": "broker.instance",
    "fit": "broker.apps.fitting",
    "open_alert": "broker.surveys",
}
__all__ = ["Alert", "BrokerError", "Instance", "fit", "open_alert"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'broker' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
