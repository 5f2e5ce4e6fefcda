"""BigQuery's SQL to DuckDB's: which tables a query reads, and the same query in words of ours.

Only what sqlglot leaves open is done here: names of tables, arrays of structs, offsets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from broker.errors import UsageError


@dataclass(frozen=True, slots=True)
class Relation:
    """What stands for a table in the translated query.

    `select` is DuckDB's SQL for its rows; `struct_arrays` are its columns that are arrays of
    structs, nested ones included, in lower case.
    """

    select: str
    struct_arrays: frozenset[str]


@dataclass(frozen=True, slots=True)
class Translated:
    """A query for DuckDB and the names of the parameters that it takes."""

    sql: str
    parameters: tuple[str, ...]


Bind = Callable[[str, str], Relation]


def translate(sql: str, bind: Bind) -> Translated:
    """Translate one SELECT.

    Parameters
    ----------
    sql : str
        A query in BigQuery's dialect; parameters are ``@name``.
    bind : callable
        Given dataset and table, what stands for it; called for the tables in the query only.

    Raises
    ------
    UsageError
        If it is not one readable SELECT.
    """
    tree = parse_select(sql)
    relations = _bind_tables(tree, bind)
    _shorten_columns(tree, relations)
    _unnest(tree, frozenset().union(*(it.struct_arrays for it in relations.values())))
    _slice_limited_arrays(tree)
    _rename_functions(tree)
    _widen_numbers(tree)
    _name_columns(tree)
    parameters = tuple(sorted({it.name for it in tree.find_all(exp.Parameter)}))
    text = _generate(tree)
    for name, relation in relations.items():
        text = text.replace(f'"{_token(name)}"', f"({relation.select})")
    return Translated(text, parameters)


def parse_select(sql: str) -> exp.Query:
    """Read one SELECT in BigQuery's dialect.

    Raises
    ------
    UsageError
        If it is anything else, or could change something.
    """
    try:
        statements = [it for it in sqlglot.parse(sql, read="bigquery") if it is not None]
    except SqlglotError as error:
        raise UsageError(f"the SQL cannot be read: {error}") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise UsageError("a query must be one SELECT; nothing else is allowed")
    if statements[0].find(exp.DML, exp.DDL, exp.Command, exp.Into):
        raise UsageError("a query must be one SELECT; it may not change anything")
    return statements[0]


def _generate(tree: exp.Query) -> str:
    """Write the query for DuckDB; what would give rows of another shape there is refused."""
    if different := tree.find(exp.ApproxTopK):
        raise UsageError(f"{different.sql('bigquery')} cannot be run here: use COUNT and GROUP BY")
    return tree.sql(dialect="duckdb", unsupported_level=ErrorLevel.IGNORE)


def _token(name: tuple[str, str]) -> str:
    """Mark the place of a table; a NUL cannot be part of a name that a user wrote."""
    return "\0".join(name)


def _bind_tables(tree: exp.Query, bind: Bind) -> dict[tuple[str, str], Relation]:
    found: dict[tuple[str, str], Relation] = {}
    known = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    aliases = {it.alias_or_name.lower() for it in tree.find_all(exp.Table)}
    for table in list(tree.find_all(exp.Table)):
        if not isinstance(table.this, exp.Identifier):
            raise UsageError(f"{table.sql('bigquery')} is not a table")
        if not table.db and table.name.lower() in known:
            continue
        if table.db.lower() in aliases and not table.catalog:
            _replace_by_unnest(table)
            continue
        name = (table.db, table.name)
        if name not in found:
            found[name] = bind(*name)
        marked = exp.to_identifier(_token(name), quoted=True)
        alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name))
        table.replace(exp.Table(this=marked, alias=alias, joins=table.args.get("joins")))
    return found


def _replace_by_unnest(table: exp.Table) -> None:
    """Spell ``FROM t, t.array`` as ``FROM t, UNNEST(t.array)``."""
    array = exp.column(table.name, table=table.db)
    alias = exp.TableAlias(columns=[exp.to_identifier(table.alias_or_name)])
    table.replace(exp.Unnest(expressions=[array], alias=alias))


def _shorten_columns(tree: exp.Query, relations: dict[tuple[str, str], Relation]) -> None:
    """Spell ``dataset.table.column`` as ``table.column``."""
    for column in tree.find_all(exp.Column):
        if (column.text("db"), column.table) in relations:
            column.set("db", None)
            column.set("catalog", None)


def _unnest(tree: exp.Query, struct_arrays: frozenset[str]) -> None:
    """Let an array of structs give its fields as columns, and offsets count from zero."""
    aliases = (f"_unnested{i}" for i in count())
    for join in tree.find_all(exp.Join):
        if join.side == "LEFT" and isinstance(join.this, exp.Unnest) and not join.args.get("on"):
            join.set("on", exp.true())
    for unnest in list(tree.find_all(exp.Unnest)):
        array = unnest.expressions[0]
        nested = _gives_structs(array, struct_arrays)
        if isinstance(unnest.parent, exp.In) or not (nested or unnest.args.get("offset")):
            continue
        unnest.replace(_subquery(unnest, array, nested, aliases))


def _gives_structs(array: exp.Expression, struct_arrays: frozenset[str]) -> bool:
    if isinstance(array, exp.Column | exp.Dot):
        return array.name.lower() in struct_arrays
    if isinstance(array, exp.Array) and array.expressions:
        return isinstance(array.expressions[0], exp.Struct)
    return False


def _subquery(
    unnest: exp.Unnest, array: exp.Expression, nested: bool, aliases: Iterator[str]
) -> exp.Subquery:
    alias = unnest.args.get("alias")
    names = [it.name for it in alias.columns] if alias else []
    element = names[0] if names else (alias.name if alias else "") or next(aliases)
    depth = exp.PropertyEQ(this=exp.to_identifier("max_depth"), expression=exp.Literal.number(2))
    arguments = [array.copy(), depth] if nested else [array.copy()]
    value: exp.Expression = exp.Anonymous(this="UNNEST", expressions=arguments)
    columns = [value if nested else exp.alias_(value, element, quoted=True)]
    offset = unnest.args.get("offset")
    if offset:
        name = offset.name if isinstance(offset, exp.Identifier) else "offset"
        index = exp.Anonymous(
            this="GENERATE_SUBSCRIPTS", expressions=[array.copy(), exp.Literal.number(1)]
        )
        columns.append(exp.alias_(exp.Sub(this=index, expression=exp.Literal.number(1)), name))
    outer = element if nested else next(aliases)
    return exp.Select(expressions=columns).subquery(outer)


def _slice_limited_arrays(tree: exp.Query) -> None:
    """Spell ``ARRAY_AGG(x LIMIT n)`` as the first n of the whole array."""
    for aggregate in list(tree.find_all(exp.ArrayAgg)):
        limit = aggregate.find(exp.Limit)
        if limit is None or limit.find_ancestor(exp.ArrayAgg, exp.Select) is not aggregate:
            continue
        size = limit.expression.copy()
        limit.replace(limit.this)
        outer = aggregate.copy()
        first = exp.Literal.number(1)
        aggregate.replace(exp.Anonymous(this="LIST_SLICE", expressions=[outer, first, size]))


def _rename_functions(tree: exp.Query) -> None:
    """Give the engine's names to functions that it has under another."""
    for format_ in list(tree.find_all(exp.Format)):
        format_.replace(
            exp.Anonymous(this="PRINTF", expressions=[format_.this, *format_.expressions])
        )
    for extract in list(tree.find_all(exp.Extract)):
        if extract.name.upper() == "DATE":
            extract.replace(exp.cast(extract.expression, "DATE"))


def _widen_numbers(tree: exp.Query) -> None:
    """Make 1.5 a FLOAT64, as in BigQuery; DuckDB takes it for a decimal."""
    for number in list(tree.find_all(exp.Literal)):
        if not number.is_string and not number.this.isdigit():
            number.replace(exp.cast(number.copy(), exp.DataType.Type.DOUBLE))


def _name_columns(tree: exp.Query) -> None:
    """Name columns without a name as BigQuery does: ``f0_``, ``f1_``, …"""
    select = tree
    while not isinstance(select, exp.Select):
        select = select.this
    numbers = count()
    for column in list(select.expressions):
        if not column.output_name and not column.is_star:
            column.replace(exp.alias_(column.copy(), f"f{next(numbers)}_"))
