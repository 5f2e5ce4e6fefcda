"""Start local-bigquery with what it gets wrong mended; this runs in its environment.

Fields that are added to structures that exist it notes in its catalogue, but leaves the
stored columns as they were. Of two jobs of one name at the same moment it takes both. And
tables that are written to at the same moment fail one another: they take turns here.
"""

from functools import wraps
from threading import RLock

from local_bigquery.catalog import datasets, tabledata, tables
from local_bigquery.cli import main
from local_bigquery.engine import database, types
from local_bigquery.jobs import runner

_TURN = RLock()
# Each is looked up in its module by whoever calls it.
_TAKE_TURNS = (
    (runner, "submit _handle"),
    (datasets, "create update delete"),
    (tables, "create update delete"),
    (tabledata, "insert_all"),
)


def added_fields(path, before, after):
    """Yield the fields of `after` that `before` lacks, below a column, as SQL."""
    known = {field.name.casefold(): field for field in before.fields or []}
    inside = f"{path}.element" if before.mode == "REPEATED" else path
    for field in after.fields or []:
        name = f"{inside}.{database.quote(field.name)}"
        if field.name.casefold() in known:
            yield from added_fields(name, known[field.name.casefold()], field)
        else:
            yield f"{name} {types.duckdb_type(field)}"


def alter(project_id, dataset_id, table_id, fields, of_theirs=tables._alter):
    """Add columns as they do, and fields of columns besides."""
    table = tables.name(project_id, dataset_id, table_id)
    columns = tables.columns(project_id, dataset_id, table_id)
    after = {field.name.casefold(): field for field in fields}
    with database.cursor() as cursor:
        cursor.execute("BEGIN")
        for column in columns:
            path, field = database.quote(column.name), after[column.name.casefold()]
            for added in added_fields(path, column, field):
                cursor.execute(f"ALTER TABLE {table} ADD COLUMN {added}")
        cursor.execute("COMMIT")
    of_theirs(project_id, dataset_id, table_id, fields)


def in_turn(function):
    """Let one caller of all such functions in at a time."""

    @wraps(function)
    def waiting(*given, **named):
        with _TURN:
            return function(*given, **named)

    return waiting


if __name__ == "__main__":
    tables._alter = alter
    for module, names in _TAKE_TURNS:
        for name in names.split():
            setattr(module, name, in_turn(getattr(module, name)))
    main()
