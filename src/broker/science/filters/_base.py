"""What a filter is: named cuts, each an expression with a threshold, a unit and a reference."""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from broker.science.filters._compare import Comparison, comparison_of

MAX_CUTS = 32
FAIL, PASS, UNKNOWN = 0, 1, 2
# The name under which an expression finds the alert itself, as a struct.
WHOLE_ALERT = "(alert)"


@dataclass(frozen=True)
class Cut:
    """One named condition of a filter.

    Parameters
    ----------
    name : str
        Short name, unique within its filter; it is also the name of a message attribute.
    value : polars.Expr
        The quantity shown to a person; a struct where the cut rests on several.
    passes : polars.Expr
        Boolean; null where the alert cannot tell, which counts as not passed.
    threshold : str or float
        What `value` is held against.
    comparison : str
        How: ``>=``, ``<=``, ``>``, ``<``, ``==`` or ``abs <=`` allow a margin to be computed.
    unit : str
        Unit of `value` and `threshold`; empty for a pure number.
    reference : str
        Where the cut comes from.
    when_missing : str or polars.Expr
        What it means when the value is missing.
    """

    name: str
    value: pl.Expr
    passes: pl.Expr
    threshold: str | float
    comparison: str = ">="
    unit: str = ""
    reference: str = ""
    when_missing: str | pl.Expr = "the alert has no value for it"

    @cached_property
    def plain(self) -> Comparison | None:
        """The cut as a number of the alert held against a constant, if it is nothing else."""
        return comparison_of(self.value, self.passes, self.comparison, self.threshold)

    @cached_property
    def code(self) -> pl.Expr:
        """The verdict as uint8: 0 failed, 1 passed, 2 unknown."""
        return self.passes.cast(pl.Boolean).cast(pl.UInt8).fill_null(UNKNOWN)

    @cached_property
    def reads(self) -> Sequence[str]:
        """The columns, as dotted paths, on which the verdict rests."""
        return self.passes.meta.root_names()

    def columns(self) -> set[str]:
        """Name the columns, as dotted paths, that the cut reads."""
        expressions = (self.value, self.passes, self.when_missing)
        found = (one.meta.root_names() for one in expressions if isinstance(one, pl.Expr))
        return {name for names in found for name in names if name}


@dataclass(frozen=True)
class Variant:
    """The cuts of a filter for alerts that have certain columns.

    Parameters
    ----------
    requires : tuple of str
        Dotted paths, such as ``candidate.rb``; the variant applies where all of them and
        all columns that the cuts name exist.
    cuts : tuple of Cut
        An alert passes when all of them pass.
    note : str
        What a reader should know about this version of the filter.

    Raises
    ------
    ValueError
        If there is no cut, more than 32, or a name twice.
    """

    requires: tuple[str, ...]
    cuts: tuple[Cut, ...]
    note: str = ""
    columns: frozenset[str] = field(init=False, repr=False)

    @property
    def needs(self) -> frozenset[str]:
        """All dotted paths without which the variant does not apply."""
        return self.columns.union(self.requires)

    def __post_init__(self) -> None:
        columns = frozenset(name for cut in self.cuts for name in cut.columns())
        object.__setattr__(self, "columns", columns)
        names = [cut.name for cut in self.cuts]
        if not 1 <= len(names) <= MAX_CUTS:
            raise ValueError(f"a filter has 1 to {MAX_CUTS} cuts, not {len(names)}")
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"cut names must differ; given twice: {', '.join(sorted(twice))}")


@dataclass(frozen=True)
class Filter:
    """A predicate on alerts that can explain itself.

    Parameters
    ----------
    name : str
        Name in settings, tables and on the command line.
    topic : str
        Stub of the topic that passing alerts are published to.
    summary : str
        One sentence for people.
    variants : tuple of Variant
        The first one whose columns an alert has is used; with none the filter does not apply.
    attribute : str
        Message attribute that carries the verdict; by default the name.
    publish_cuts : bool
        Whether each cut's verdict is a message attribute too.
    """

    name: str
    topic: str
    summary: str
    variants: tuple[Variant, ...]
    attribute: str = ""
    publish_cuts: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.attribute:
            object.__setattr__(self, "attribute", self.name)

    def variant(self, paths: Set[str]) -> Variant | None:
        """Choose the first variant that needs none but `paths`, from :func:`paths_of`."""
        return next((v for v in self.variants if v.needs <= paths), None)


def paths_of(schema: pl.Schema) -> set[str]:
    """Return the dotted paths of all columns, through structs and lists of structs.

    Examples
    --------
    >>> schema = pl.Schema({"history": pl.List(pl.Struct({"jd": pl.Float64}))})
    >>> sorted(paths_of(schema))
    ['(alert)', 'history', 'history.jd']
    """
    return {WHOLE_ALERT, *(path for name, kind in schema.items() for path in _paths(name, kind))}


def _paths(name: str, kind: pl.DataType) -> Iterator[str]:
    yield name
    while isinstance(kind, pl.List):
        kind = kind.inner  # type: ignore[assignment]
    if isinstance(kind, pl.Struct):
        for inner in kind.fields:
            yield from _paths(f"{name}.{inner.name}", inner.dtype)  # type: ignore[arg-type]


def column(path: str) -> pl.Expr:
    """Refer to a column by its dotted path, such as ``candidate.rb``; NaN is null in it."""
    return pl.col(path)


def flatten(rows: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Lay out the named columns side by side, one column a dotted path, NaN as null.

    An expression engine pays for the width of a struct at every mention of it, so that this
    is some ten times faster than to look into the structs in each cut.

    Parameters
    ----------
    rows : polars.DataFrame
        One row an alert, nested.
    names : iterable of str
        Dotted paths; those that do not exist are left out.
    """
    return Fields(rows).flat(names)


class Fields:
    """Columns and fields of nested rows by their dotted paths; each record is opened once."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self._rows = rows
        self._opened: dict[str, dict[str, pl.Series]] = {"": _by_name(rows)}

    def flat(self, names: Iterable[str]) -> pl.DataFrame:
        """Lay out those of the named columns that exist side by side, NaN as null."""
        found = {name: self.find(name) for name in sorted(set(names))}
        flat = pl.DataFrame([it.alias(name) for name, it in found.items() if it is not None])
        return flat.with_columns(pl.selectors.float().fill_nan(None))

    def find(self, path: str) -> pl.Series | None:
        """Return one of them, None if there is none such."""
        if path == WHOLE_ALERT:
            return self._rows.to_struct(path)
        if path in self._opened[""]:
            return self._opened[""][path]
        parent, _, name = path.rpartition(".")
        if parent not in self._opened:
            record = self.find(parent) if parent else None
            if record is None:
                return None
            self._opened[parent] = _opened(record)
        return self._opened[parent].get(name)


def _opened(record: pl.Series) -> dict[str, pl.Series]:
    """Return the fields of a record, none if it is something else.

    To ask for the type of a wide record takes longer than to open it.
    """
    try:
        return _by_name(record.struct.unnest())
    except pl.exceptions.PolarsError:
        return {}


def _by_name(rows: pl.DataFrame) -> dict[str, pl.Series]:
    return dict(zip(rows.columns, rows.get_columns(), strict=True))


def number(path: str) -> pl.Expr:
    """Refer to a measured number, in single precision.

    Surveys send most measurements in single precision, where 0.65 is stored as
    0.64999998; thresholds are therefore compared in single precision, so that a value
    written as 0.65 is at least 0.65.
    """
    return column(path).cast(pl.Float32)


def single(threshold: float) -> pl.Expr:
    """Write a threshold in single precision, to compare with :func:`number`."""
    return pl.lit(threshold, dtype=pl.Float32)


def at_least(name: str, path: str, threshold: float, unit: str, reference: str) -> Cut:
    """Make the cut ``value >= threshold``."""
    value = number(path)
    return Cut(name, value, value >= single(threshold), threshold, ">=", unit, reference)


def at_most(name: str, path: str, threshold: float, unit: str, reference: str) -> Cut:
    """Make the cut ``value <= threshold``."""
    value = number(path)
    return Cut(name, value, value <= single(threshold), threshold, "<=", unit, reference)


def within(name: str, path: str, threshold: float, unit: str, reference: str) -> Cut:
    """Make the cut ``|value| <= threshold``."""
    value = number(path)
    return Cut(name, value, value.abs() <= single(threshold), threshold, "abs <=", unit, reference)


def no_flag(name: str, record: str, flags: tuple[str, ...], reference: str) -> Cut:
    """Make the cut that no flag of `flags` is set; its value lists those that are."""
    columns = {flag: column(f"{record}.{flag}").cast(pl.Boolean) for flag in flags}
    raised = [pl.when(is_set).then(pl.lit(flag)) for flag, is_set in columns.items()]
    return Cut(
        name,
        pl.concat_str(raised, separator=", ", ignore_nulls=True),
        ~pl.any_horizontal(columns.values()),
        "none of " + ", ".join(flags),
        "set:",
        "",
        reference,
        "a flag is missing and none of the others is set",
    )
