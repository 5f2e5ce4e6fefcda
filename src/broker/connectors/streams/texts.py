"""Attributes as they are delivered: text."""

from collections.abc import Sequence

import polars as pl


def attribute_texts(attributes: pl.DataFrame, rows: Sequence[int]) -> list[dict[str, str]]:
    """Return the attributes of some messages as text, without those that are null."""
    if not attributes.width:
        return [{} for _ in rows]
    texts = attributes[list(rows)].select(pl.all().cast(pl.String))
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in texts.iter_rows(named=True)
    ]
