"""What the broker must know about one survey; each survey folder holds one such value."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from broker.alerts.lightcurve import PhotometryMap, load_photometry_map
from broker.surveys.avro import AvroSchema
from broker.surveys.rows import SourceTable
from broker.surveys.schema_map import SchemaMap
from broker.surveys.shipped import ShippedSchemas, field_paths

if TYPE_CHECKING:
    from broker.surveys.batch import AlertFrame

# Record names that re-serialisers write instead of the survey's own; such a schema is
# recognised by its fields.
_ANONYMOUS = re.compile(r"topLevelRecord(\..*)?\Z")
_VERSION = re.compile(r"v(\d+(?:_\d+)+)\b")

Generate = Callable[[int, int, date], Iterator[bytes]]


@dataclass(frozen=True, eq=False)
class Survey:
    """One survey.

    Parameters
    ----------
    name : str
        Lower-case keyword.
    folder : Path
        Where ``schema_map.yaml`` and ``schemas/`` are.
    record_names : str
        Regular expression of the full names of its alert records.
    required : tuple of str
        Dotted fields without which a record with a foreign name is not an alert of it.
    wire : str
        How its stream sends an alert: ``container``, ``confluent``, ``bare`` or ``json``.
    time_scale : str
        Scale of its times, ``utc`` or ``tai``.
    object_id_type : polars type
        Type of its object ids.
    source_table : SourceTable
        Which columns its table of detections has.
    cutout_format : str
        ``gzip`` (gzipped FITS) or ``fits``; empty if it sends none.
    schema_doc : str
        Documentation that its schema has, which some re-serialisers drop.
    clustered_tables : bool
        Whether its tables also have the time of publication and the HEALPix ids, by which
        they are partitioned and clustered.
    file_layout : str
        How an alert's own file is named.
    generate : callable, optional
        Makes packets of a night from a count, a seed and a date.
    texts : mapping of str to str
        Contents of files that are used in place of those of the same name in `folder`.
    """

    name: str
    folder: Path
    record_names: str
    required: tuple[str, ...]
    wire: str
    time_scale: str
    object_id_type: pl.DataType = field(default_factory=pl.Int64)
    source_table: SourceTable = field(default_factory=SourceTable)
    cutout_format: str = ""
    schema_doc: str = ""
    clustered_tables: bool = False
    file_layout: str = "{topic}/{object_id}/{source_id}.avro"
    generate: Generate | None = None
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)

    def text(self, name: str) -> str | None:
        """Return a file of its folder, or what is used in its place; None if there is none."""
        file = self.folder / name
        if name in self.texts or not file.is_file():
            return self.texts.get(name)
        return file.read_text()

    @cached_property
    def schema_map(self) -> SchemaMap:
        """Its generic words."""
        return SchemaMap.parse(self.text("schema_map.yaml") or "", f"of {self.name}")

    @cached_property
    def schemas(self) -> ShippedSchemas:
        """The schema definitions that ship with it."""
        return ShippedSchemas(self.folder / "schemas")

    def shipped_versions(self) -> tuple[str, ...]:
        """Return the versions of its alerts that can be read without their schema, newest first."""
        return self.schemas.versions

    @cached_property
    def bands(self) -> Mapping[Any, str]:
        """What its packets call a band, to the band; names not here are bands already."""
        words = self.schema_map
        return {**words.get("FILTER_MAP", {}), **words.get("EXTRA_FILTER_MAP", {})}

    @cached_property
    def photometry(self) -> PhotometryMap | None:
        """How its packets write light curves; None if they have none."""
        text = self.text("photometry.yaml")
        return load_photometry_map(text) if text is not None else None

    @property
    def topic_syntax(self) -> str:
        """Name of its stream's topic, ``yyyymmdd`` standing for the UTC date."""
        return str(self.schema_map.get("TOPIC_SYNTAX", ""))

    def topic(self, night: date) -> str:
        """Name the topic of a UTC date."""
        return self.topic_syntax.replace("yyyymmdd", f"{night:%Y%m%d}")

    @property
    def cutouts(self) -> dict[str, tuple[str, ...]]:
        """Path of each kind of cutout that it has."""
        kinds = ("science", "template", "difference")
        spots = {kind: self.schema_map.locations(f"cutout_{kind}") for kind in kinds}
        return {kind: found[0].path for kind, found in spots.items() if found}

    @cached_property
    def _cutout_records(self) -> frozenset[str]:
        """Top-level fields that hold a cutout and nothing else."""
        return frozenset(path[0] for path in self.cutouts.values()) - {self.schema_map["source"]}

    @property
    def previous_detections(self) -> str | None:
        """Field that lists the object's earlier detections."""
        return self.schema_map.get_key("prv_sources")

    @property
    def id_attributes(self) -> tuple[str, str]:
        """Names of the message attributes of the object's and the detection's id."""
        words = self.schema_map
        spots = (words.location_used("objectid"), words.location_used("sourceid"))
        first, second = (spot.attribute if spot else "" for spot in spots)
        return first, second

    def band(self, packet: Mapping[str, Any]) -> str | None:
        """Return the band of an alert."""
        value = self.schema_map.get_value("filter", packet)
        return None if value is None else str(self.bands.get(value, value))

    def recognises(self, schema: AvroSchema) -> bool:
        """Tell whether a schema describes alerts of this survey."""
        if re.fullmatch(self.record_names, schema.name):
            return True
        if not _ANONYMOUS.match(schema.name):
            return False
        return self.has_fields(field_paths(schema.definition, depth=2))

    def has_fields(self, paths: set[str]) -> bool:
        """Tell whether dotted field names are enough for an alert of this survey."""
        return all(
            any(option in paths for option in field_name.split("|")) for field_name in self.required
        )

    def version_of(self, schema: AvroSchema) -> str:
        """Return the version that a schema names, e.g. ``3.3`` or ``v10_0``; empty if none."""
        if named := _VERSION.search(schema.name):
            return named[0]
        return str(schema.definition.get("version", ""))

    def version_label(self, version: str) -> str:
        """Write a version that a packet states the way that schema names do."""
        named = _VERSION.search(version)
        return named[0] if named else version

    def alerts_rows(self, frame: "AlertFrame") -> pl.DataFrame:
        """Return the rows of table ``alerts``: nested, in the survey's words, no cutouts."""
        known = self.schemas.top_level_fields or frozenset(frame.rows.columns)
        stored = known - self._cutout_records
        # A selection would be planned like a query, which takes longer than all that is in it.
        return pl.DataFrame([one for one in frame.rows.get_columns() if one.name in stored])

    def dia_source_rows(self, frame: "AlertFrame") -> pl.DataFrame:
        """Return the rows of table ``DIASource``: one flat row a detection.

        Columns that the alert's schema version lacks are absent.
        """
        return self.source_table.rows(frame.rows, frame.columns)
