"""One tree of errors, split by what the caller should do about them.

::

    BrokerError
    ├── UsageError                      exit 2: the command or argument is wrong
    │   └── ConfigError                 exit 2: names the setting
    ├── PacketError                     never retry: dead letter, acknowledge
    │   ├── DecodeError                 the bytes are not a readable alert
    │   ├── UnknownSchemaError          the schema is not known; says how to add it
    │   └── MissingFieldError           a field that the broker cannot do without is absent
    ├── ServiceError
    │   ├── TransientError              back off and try again, do not acknowledge
    │   └── RefusedError                dead letter or stop, with the service's words
    │       ├── NotFoundError
    │       └── ForbiddenError
    └── ScienceError                    logged, counted, in the ledger; the alert goes on
"""


class BrokerError(Exception):
    """Base of every error that this package raises on purpose."""


class UsageError(BrokerError):
    """A command, argument or place is wrong; nothing was changed."""


class ConfigError(UsageError):
    """A setting is wrong; the message names it."""


class PacketError(BrokerError):
    """One packet cannot be used; trying again cannot help."""


class DecodeError(PacketError):
    """The bytes are not a readable alert packet."""


class UnknownSchemaError(PacketError):
    """No schema is known for the packet; the message says how to add one."""


class MissingFieldError(PacketError):
    """A field without which an alert cannot be stored is absent or null."""


class ServiceError(BrokerError):
    """A service outside this process failed."""


class TransientError(ServiceError):
    """The service may answer later; back off and try again."""


class RefusedError(ServiceError):
    """The service said no; trying again cannot help."""


class NotFoundError(RefusedError):
    """The thing asked for does not exist."""


class ForbiddenError(RefusedError):
    """The service does not let us."""


class ScienceError(BrokerError):
    """A fitter or classifier failed on one alert; the alert itself goes on."""
