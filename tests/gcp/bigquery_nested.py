"""Start local-bigquery with what it lacks: fields that are added to structures that exist.

It notes such fields in its catalogue, but leaves the stored columns as they were. This runs
in its environment, not in ours.
"""

from local_bigquery.catalog import tables
from local_bigquery.cli import main
from local_bigquery.engine import database, types


def add_fields(table, path, before, after):
    """Add the fields of `after` that `before` lacks, below a column."""
    known = {field.name.casefold(): field for field in before.fields or []}
    inside = f"{path}.element" if before.mode == "REPEATED" else path
    for field in after.fields or []:
        name = f"{inside}.{database.quote(field.name)}"
        if field.name.casefold() in known:
            add_fields(table, name, known[field.name.casefold()], field)
        else:
            database.execute(f"ALTER TABLE {table} ADD COLUMN {name} {types.duckdb_type(field)}")


def alter(project_id, dataset_id, table_id, fields, of_theirs=tables._alter):
    """Add columns as they do, and fields of columns besides."""
    columns = tables.columns(project_id, dataset_id, table_id)
    known = {column.name.casefold(): column for column in columns}
    for field in fields:
        before = known.get(field.name.casefold())
        if before is not None:
            name = database.quote(field.name)
            add_fields(tables.name(project_id, dataset_id, table_id), name, before, field)
    of_theirs(project_id, dataset_id, table_id, fields)


if __name__ == "__main__":
    tables._alter = alter
    main()
