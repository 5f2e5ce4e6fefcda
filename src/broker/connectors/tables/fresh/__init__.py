"""A Parquet file of one batch, written at the speed of memory.

General writers work out the levels of a nested list anew for each of its fields, and encode and
compress every column. A batch's file is read a few times before it is merged into a large,
sorted and compressed one; here its columns are written as they lie in memory.
"""

from broker.connectors.tables.fresh.writer import Prepared

__all__ = ["Prepared"]
