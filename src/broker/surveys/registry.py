"""Schemas by number: shipped with us, kept from before, or asked of a registry."""

import hashlib
import http.client
import json
import logging
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.errors import (
    ConfigError,
    DecodeError,
    NotFoundError,
    ServiceError,
    TransientError,
    UnknownSchemaError,
)
from broker.surveys.avro import AvroSchema
from broker.surveys.shipped import version_key
from broker.surveys.survey import Survey

_LOG = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_PAUSE_S = 60.0
# The largest alert schema today has 90 kB; a registry's answer is doubly encoded.
_MOST_BYTES = 4_000_000


class SchemaRegistry:
    """A Confluent-compatible schema registry, its answers kept on disk.

    Parameters
    ----------
    base_url : str
        Address before ``/schemas/ids/<id>``; http or https.
    cache : Path, optional
        Folder for the answers; what is there is never asked for again.
    timeout_s : float
        Longest wait for an answer, in seconds.
    ask : bool
        Whether it may be asked; if not, only the kept answers are used.

    Raises
    ------
    ConfigError
        If the address is not http or https, or holds a login, which would get into messages.
    """

    def __init__(
        self,
        base_url: str,
        cache: Path | None = None,
        timeout_s: float = _TIMEOUT_S,
        *,
        ask: bool = True,
    ) -> None:
        if "@" in base_url:
            raise ConfigError("schema_registry must be an address without a login")
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"schema_registry must be an http or https address, not {base_url!r}")
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._may_ask = ask
        mark = hashlib.sha256(self._base_url.encode()).hexdigest()[:12]
        self._cache = cache / "schemas" / mark if cache else None

    def definition(self, id_: int) -> Any:
        """Return the definition of a schema id.

        Raises
        ------
        NotFoundError
            If the registry does not know the id, or may not be asked.
        TransientError
            If the registry does not answer sensibly.
        """
        file = self._cache / f"{id_}.json" if self._cache else None
        if file is not None and (kept := _kept(file)) is not None:
            return kept
        if not self._may_ask:
            raise NotFoundError("no schema registry is set")
        definition = self._ask(id_)
        if file is not None:
            try:
                _write_whole(file, json.dumps(definition))
            except OSError as error:  # then the next start asks again
                _LOG.warning("schema %d cannot be kept in %s: %s", id_, file, error.strerror)
        return definition

    def _ask(self, id_: int) -> Any:
        url = f"{self._base_url}/schemas/ids/{id_}"
        try:
            with urllib.request.urlopen(url, timeout=self._timeout_s) as answer:  # noqa: S310
                return json.loads(json.loads(answer.read(_MOST_BYTES))["schema"])
        except urllib.error.HTTPError as error:
            with error:
                kind = NotFoundError if error.code == 404 else TransientError
                raise kind(f"the schema registry answers {error.code} for id {id_}") from error
        except OSError as error:
            why = error.reason if isinstance(error, urllib.error.URLError) else error
            raise TransientError(
                f"the schema registry does not answer for id {id_}: {why}"
            ) from error
        except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise TransientError(
                f"the schema registry gives no schema for id {id_}: its answer is none"
            ) from error


@dataclass
class SchemaResolver:
    """Finds the schema of a numbered packet; remembers what it found.

    Ids are ``100 * major + minor``. The order is: shipped, kept or asked of the registry, the
    nearest shipped minor version of the same major one (with a warning, once an id). An id for
    which there is nothing is remembered too, so that a stream of such packets does not wait for
    the registry again and again; one that did not answer is asked again after a minute.
    """

    registry: SchemaRegistry | None = None
    now: Callable[[], float] = time.monotonic
    _found: dict[tuple[str, int], AvroSchema | str] = field(default_factory=dict, repr=False)
    _again: dict[tuple[str, int], float] = field(default_factory=dict, repr=False)
    _told: set[tuple[str, int]] = field(default_factory=set, repr=False)

    def by_id(self, survey: Survey, id_: int) -> AvroSchema:
        """Return the schema of a numbered packet of a survey.

        Raises
        ------
        UnknownSchemaError
            If no schema of that major version is known; says what to do.
        """
        key = (survey.name, id_)
        if key not in self._found or self.now() >= self._again.get(key, math.inf):
            self._found[key] = self._find(survey, id_)
        found = self._found[key]
        if isinstance(found, str):
            raise UnknownSchemaError(found)
        return found

    def _find(self, survey: Survey, id_: int) -> AvroSchema | str:
        """Return the schema, or why there is none."""
        wanted = divmod(id_, 100)
        versions = {version_key(name)[:2]: name for name in survey.schemas.versions}
        if wanted in versions:
            return _shipped(survey, versions[wanted])
        asked, why = self._ask(survey, id_)
        if asked is not None:
            return asked
        near = [version for version in versions if version[0] == wanted[0]]
        if not near:
            return _what_to_do(survey, id_, why)
        nearest = min(near, key=lambda version: (abs(version[1] - wanted[1]), version[1]))
        if (survey.name, id_) not in self._told:
            self._told.add((survey.name, id_))
            _LOG.warning(
                "schema %d.%d of %s is not known (%s); reading its alerts with %s",
                *(*wanted, survey.name, why, versions[nearest]),
            )
        return _shipped(survey, versions[nearest])

    def _ask(self, survey: Survey, id_: int) -> tuple[AvroSchema | None, str]:
        if self.registry is None:
            return None, "no schema registry is set"
        self._again.pop((survey.name, id_), None)
        try:
            schema = AvroSchema.parse(self.registry.definition(id_))
        except TransientError as error:
            self._again[survey.name, id_] = self.now() + _PAUSE_S
            return None, str(error)
        except (ServiceError, DecodeError) as error:
            return None, str(error)
        if not survey.recognises(schema):
            return None, f"the registry's schema {id_} is {schema.name}"
        return schema, ""


def _shipped(survey: Survey, version: str) -> AvroSchema:
    schema = survey.schemas.get(version)
    if schema is None:
        raise UnknownSchemaError(f"schema {version} of {survey.name} is gone from its folder")
    return schema


def _what_to_do(survey: Survey, id_: int, why: str) -> str:
    major, minor = divmod(id_, 100)
    known = ", ".join(survey.schemas.versions) or "none"
    return (
        f"schema id {id_} (version {major}.{minor}) of {survey.name} is not known; shipped are "
        f"{known}, and {why}. Set schema_registry to the survey's registry, or add the "
        f"definition with: pgb schemas add FOLDER --survey {survey.name}"
    )


def _kept(file: Path) -> Any:
    """Return a kept answer; None if there is none that can be read."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _write_whole(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(file)
