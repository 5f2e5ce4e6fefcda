"""Flat rows of detections from nested rows of alerts, described as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True)
class SourceTable:
    """Which columns a survey's table of detections has.

    Parameters
    ----------
    record : str
        The record of the triggering detection; its fields become columns.
    top : tuple of str or None
        Fields of the packet that come first; None takes all that are no record or list.
    drop : tuple of str
        Fields of `record` that are left out.
    rename : mapping
        New names of fields of `record`.
    joined : tuple of str, optional
        ``(list, field, column)``: `column` is the comma-joined non-null `field` of `list`,
        null where the list is.
    """

    record: str = ""
    top: tuple[str, ...] | None = ()
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    joined: tuple[str, str, str] | None = None

    def rows(self, alerts: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
        """Return one flat row for each nested row; `schema` is that of `alerts`."""
        found = pl.DataFrame([alerts.get_column(name) for name in self._top_fields(schema)])
        if isinstance(schema.get(self.record), pl.Struct):
            fields = self._fields(alerts.get_column(self.record))
            found = found.hstack(fields) if found.width else fields
        if self.joined:
            found = found.hstack(alerts.select(_joined(schema, *self.joined)))
        return found

    def _top_fields(self, schema: pl.Schema) -> list[str]:
        if self.top is None:
            return [name for name, dtype in schema.items() if not dtype.is_nested()]
        return [name for name in self.top if name in schema]

    def _fields(self, record: pl.Series) -> pl.DataFrame:
        # An expression for each field costs three times more than to open the record once.
        fields = record.struct.unnest()
        for name in self.drop:
            if name in fields.columns:
                fields.drop_in_place(name)
        return fields.rename(self.rename, strict=False) if self.rename else fields


def lists_field(dtype: pl.DataType | None, name: str) -> bool:
    """Tell whether a column is a list of records that have a field `name`."""
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    return isinstance(inner, pl.Struct) and name in dict(inner)


def _joined(schema: pl.Schema, listed: str, inner: str, column: str) -> pl.Expr:
    if not lists_field(schema.get(listed), inner):
        return pl.repeat(None, pl.len(), dtype=pl.String).alias(column)
    ids = pl.element().struct.field(inner).drop_nulls().cast(pl.String)
    return pl.col(listed).list.eval(ids).list.join(",").alias(column)
