"""Decode many payloads at once: one frame for each schema they were written with."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from broker.alerts.lists import count_items, open_lists
from broker.errors import DecodeError, MissingFieldError, PacketError
from broker.surveys.avro import AvroSchema, ColumnDecoder, Decoded
from broker.surveys.registry import SchemaResolver
from broker.surveys.routing import Group, Router, one_reason
from broker.surveys.rows import lists_field
from broker.surveys.schema_map import SchemaMap
from broker.surveys.shipped import field_paths
from broker.surveys.survey import Survey

# Beyond this many writer schemas in one process, their decoders are made anew.
_MOST_DECODERS = 64
_UNKNOWN_VERSION = "unknown"
# Numbers beyond these are as good as none: they are damage, and nothing can be done with them.
_MOST_RA, _MOST_DEC, _MOST_MJD = 360.0, 90.0, 1e10
_KEYS = ("object_id", "source_id", "ra", "dec", "mjd")

_DECODERS: dict[str, ColumnDecoder] = {}


@dataclass(frozen=True, eq=False)
class _Reading:
    """How a survey's words are read from rows of one schema; made once for many batches.

    `columns` are the rows' columns, `kind` is the same as text; `history` is the list of earlier
    detections and the field that has their ids.
    """

    words: SchemaMap
    columns: pl.Schema
    kind: str
    keys: Sequence[pl.Expr]
    ids: Sequence[pl.Expr]
    history: tuple[str, str] | None


_READINGS: dict[tuple[str, str], _Reading] = {}


@dataclass(frozen=True, eq=False)
class AlertFrame:
    """Alerts of one batch that have the same columns.

    Attributes
    ----------
    survey : Survey
    schema : AvroSchema
        The schema that the first of them was written with.
    schema_version : str
        As message attributes name it.
    index : array of int64, shape (rows,)
        Which payload each row comes from.
    rows : polars.DataFrame
        Nested rows in the survey's own words, without cutouts.
    blobs : dict
        Offset and length of each cutout in the decoded datum, by path.
    keys : polars.DataFrame
        ``object_id, source_id, ra, dec`` [deg], ``mjd`` [d, in the survey's time scale] and
        ``n_previous``, the number of earlier detections in the packet.
    prefixes : sequence of bytes
        Container headers that payloads share.
    prefix_index : array of int32, shape (rows,)
        Which of them each row's payload starts with, -1 for none.
    """

    survey: Survey
    schema: AvroSchema
    schema_version: str
    index: NDArray[np.int64]
    rows: pl.DataFrame
    blobs: dict[str, tuple[NDArray[np.int64], NDArray[np.int32]]]
    keys: pl.DataFrame
    prefixes: Sequence[bytes] = ()
    prefix_index: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))

    @property
    def columns(self) -> pl.Schema:
        """Names and types of `rows`; the same object for every batch of a schema.

        To ask Polars for nested types costs as much as a filter does.
        """
        return _reading(self.survey, self.schema, self.rows).columns

    @property
    def kind(self) -> str:
        """`columns` as text: equal for frames that can be put together."""
        return _reading(self.survey, self.schema, self.rows).kind

    @property
    def attributes(self) -> pl.DataFrame:
        """Message attributes that come from the packet: ids, version, earlier detections."""
        ids = self.rows.select(_reading(self.survey, self.schema, self.rows).ids)
        used = [one for one in ids.get_columns() if one.null_count() < len(one)]
        version = pl.repeat(self.schema_version, len(self.index), eager=True)
        labels = [
            version.alias("schema_version"),
            self.keys.get_column("n_previous").alias("n_previous_detections"),
        ]
        return pl.DataFrame([*used, *labels])

    def select(self, mask: NDArray[np.bool_]) -> "AlertFrame":
        """Return the rows where `mask` holds."""
        if bool(mask.all()):
            return self
        kept = pl.Series(mask)
        return replace(
            self,
            index=self.index[mask],
            rows=self.rows.filter(kept),
            blobs={path: (spot[0][mask], spot[1][mask]) for path, spot in self.blobs.items()},
            keys=self.keys.filter(kept),
            prefix_index=self.prefix_index[mask],
        )


def decode_batch(
    payloads: Sequence[bytes],
    survey: Survey | None = None,
    *,
    schema: AvroSchema | None = None,
    resolver: SchemaResolver | None = None,
) -> tuple[list[AlertFrame], dict[int, PacketError]]:
    """Decode payloads of any format into columns.

    Parameters
    ----------
    payloads : sequence of bytes
        As received; formats and schema versions may be mixed.
    survey : Survey, optional
        Whose alerts are expected; another survey's are errors. None accepts all.
    schema : AvroSchema, optional
        Writer's schema of bare datums.
    resolver : SchemaResolver, optional
        Finds the schemas of numbered packets; by default the shipped ones only.

    Returns
    -------
    frames : list of AlertFrame
        The alerts; every payload is in one of them or in `errors`.
    errors : dict
        Why a payload gave no alert, by its index. A payload of several records with one bad
        record is an error as a whole.
    """
    router = Router(survey, schema, resolver or SchemaResolver())
    router.add_all(payloads)
    errors = router.errors
    frames: list[AlertFrame] = []
    for group in router.groups:
        frames += _decode_group(group, errors)
    return _merge_alike([frame for frame in frames if len(frame.index)]), errors


def _merge_alike(frames: list[AlertFrame]) -> list[AlertFrame]:
    """Put together what differs in the writing only, such as the order of a union."""
    if len(frames) < 2:
        return frames
    alike: dict[tuple[str, ...], list[AlertFrame]] = {}
    for frame in frames:
        kind = (frame.survey.name, frame.schema_version, frame.kind, *frame.blobs)
        alike.setdefault(kind, []).append(frame)
    return [_merge(group) if len(group) > 1 else group[0] for group in alike.values()]


def _merge(frames: list[AlertFrame]) -> AlertFrame:
    shifts = np.cumsum([0, *(len(frame.prefixes) for frame in frames)]).astype(np.int32)
    numbers = [
        np.where(frame.prefix_index < 0, frame.prefix_index, frame.prefix_index + shift)
        for frame, shift in zip(frames, shifts, strict=False)
    ]
    spots = {path: [frame.blobs[path] for frame in frames] for path in frames[0].blobs}
    return replace(
        frames[0],
        index=np.concatenate([frame.index for frame in frames]),
        rows=pl.concat([frame.rows for frame in frames], rechunk=False),
        blobs={
            path: (np.concatenate([at for at, _ in both]), np.concatenate([n for _, n in both]))
            for path, both in spots.items()
        },
        keys=pl.concat([frame.keys for frame in frames]),
        prefixes=[prefix for frame in frames for prefix in frame.prefixes],
        prefix_index=np.concatenate(numbers),
    )


def _decode_group(group: Group, errors: dict[int, PacketError]) -> list[AlertFrame]:
    """Decode with the first schema that fits; what fits none becomes an error."""
    frames: list[AlertFrame] = []
    reasons: dict[int, list[str]] = {}
    for schema in group.schemas:
        decoded = group.decode(_decoder(schema))
        frames += _frames(group, schema, decoded, errors)
        for position, reason in decoded.errors.items():
            reasons.setdefault(position, []).append(f"{schema.name}: {reason}")
        group = group.subset(sorted(decoded.errors))
        reasons = {new: reasons[old] for new, old in enumerate(sorted(decoded.errors))}
        if not group.payloads:
            break
    for position, number in enumerate(group.numbers):
        errors[number] = DecodeError(one_reason(reasons[position]))
    return frames


def _frames(
    group: Group, schema: AvroSchema, decoded: Decoded, errors: dict[int, PacketError]
) -> list[AlertFrame]:
    whole = ~np.isin(decoded.rows, list(decoded.errors))
    if not whole.any():
        return []
    numbers = np.asarray(group.numbers, np.int64)[decoded.rows]
    prefix_index = np.asarray(group.prefix_index, np.int32)[decoded.rows]
    keys = _keys(_reading(group.survey, schema, decoded.frame), decoded.frame)
    frame = AlertFrame(
        group.survey,
        schema,
        group.version or group.survey.version_of(schema),
        numbers,
        decoded.frame,
        decoded.blobs,
        keys,
        group.prefixes,
        prefix_index,
    ).select(whole)
    return _by_version(_without_incomplete(frame, errors))


def _decoder(schema: AvroSchema) -> ColumnDecoder:
    if schema.fingerprint not in _DECODERS:
        if len(_DECODERS) >= _MOST_DECODERS:
            _DECODERS.clear()
        _DECODERS[schema.fingerprint] = ColumnDecoder(schema)
    return _DECODERS[schema.fingerprint]


def _reading(survey: Survey, schema: AvroSchema, rows: pl.DataFrame) -> _Reading:
    """Return how to read `rows`, which were written with `schema`."""
    name, words = (survey.name, schema.fingerprint), survey.schema_map
    if name not in _READINGS or _READINGS[name].words is not words:
        if len(_READINGS) >= _MOST_DECODERS:
            _READINGS.clear()
        kinds = rows.schema
        history = _history(words, kinds)
        _READINGS[name] = _Reading(
            words, kinds, str(kinds), _key_expressions(survey, kinds), _ids(survey, kinds), history
        )
    return _READINGS[name]


def _key_expressions(survey: Survey, schema: pl.Schema) -> list[pl.Expr]:
    words = survey.schema_map

    def number(key: str, most: float) -> pl.Expr:
        value = words.expression(key, schema).cast(pl.Float64)
        return pl.when(value.abs() <= most).then(value).alias(key)

    return [
        words.expression("objectid", schema).cast(survey.object_id_type).alias("object_id"),
        words.expression("sourceid", schema).cast(pl.Int64, strict=False).alias("source_id"),
        number("ra", _MOST_RA),
        number("dec", _MOST_DEC),
        number("mjd", _MOST_MJD),
    ]


def _history(words: SchemaMap, schema: pl.Schema) -> tuple[str, str] | None:
    listed, source_id = words.get_key("prv_sources"), words.get_key("sourceid")
    if listed is None or source_id is None or not lists_field(schema.get(listed), source_id):
        return None
    return listed, source_id


def _keys(reading: _Reading, rows: pl.DataFrame) -> pl.DataFrame:
    keys = rows.select(reading.keys)
    if reading.history is None:
        return keys.with_columns(n_previous=pl.lit(0, pl.Int32))
    count = _n_previous(rows, *reading.history, keys.get_column("source_id"))
    return keys.with_columns(count.alias("n_previous"))


def _n_previous(rows: pl.DataFrame, listed: str, source_id: str, trigger: pl.Series) -> pl.Series:
    """Count the detections in the history, the triggering one not counted."""
    records, bounds = open_lists(rows.get_column(listed))
    found = records.struct.field(source_id)
    known = found.is_not_null().to_numpy()
    ids = found.cast(pl.Int64, strict=False).fill_null(0).to_numpy()
    triggers = np.repeat(trigger.fill_null(0).to_numpy(), np.diff(bounds))
    repeats = count_items(known & (ids == triggers), bounds) > 0
    return pl.Series((count_items(known, bounds) - repeats).astype(np.int32))


def _without_incomplete(frame: AlertFrame, errors: dict[int, PacketError]) -> AlertFrame:
    if not any(frame.keys.get_column(name).null_count() for name in _KEYS):
        return frame
    missing = frame.keys.select(pl.any_horizontal(pl.col(*_KEYS).is_null())).to_series().to_numpy()
    bad = {int(number) for number in frame.index[missing]}
    lacks = frame.keys.filter(pl.Series(missing)).select(_KEYS)
    for number, row in zip(frame.index[missing], lacks.iter_rows(named=True), strict=True):
        names = ", ".join(name for name, value in row.items() if value is None)
        errors[int(number)] = MissingFieldError(
            f"the {frame.survey.name} alert has no usable {names}"
        )
    return frame.select(~np.isin(frame.index, list(bad)))


def _by_version(frame: AlertFrame) -> list[AlertFrame]:
    """Label rows whose schema names no version by what the packets themselves say."""
    if frame.schema_version:
        return [frame]
    survey = frame.survey
    stated = frame.rows.select(
        survey.schema_map.expression("schema_version", frame.rows.schema).cast(pl.String)
    ).to_series()
    frames = []
    for value in stated.unique():
        mask = (stated.is_null() if value is None else stated == value).to_numpy()
        version = survey.version_label(value) if value else _alike(survey, frame.schema)
        frames.append(replace(frame.select(mask), schema_version=version))
    return frames


def _alike(survey: Survey, schema: AvroSchema) -> str:
    paths = field_paths(schema.definition, depth=2)
    return survey.schemas.most_alike(paths) or _UNKNOWN_VERSION


def _ids(survey: Survey, schema: pl.Schema) -> list[pl.Expr]:
    """One column for each alternative of the object's id, the first used wins, and the source's."""
    words, columns = survey.schema_map, []
    taken: pl.Expr | None = None
    for name in dict.fromkeys(spot.attribute for spot in words.locations("objectid")):
        one = words.expression("objectid", schema, attribute=name)
        columns.append((one if taken is None else pl.when(~taken).then(one)).alias(name))
        taken = one.is_not_null() if taken is None else taken | one.is_not_null()
    columns.append(words.expression("sourceid", schema).alias(survey.id_attributes[1]))
    return columns
