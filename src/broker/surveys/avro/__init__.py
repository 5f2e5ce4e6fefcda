"""Avro packets: schemas, containers, and batches straight into columns.

`ColumnDecoder` compiles a schema to a table of ops that one numba kernel runs over a batch.
It and fastavro accept the same bytes and give the same values, save for what follows, all of
which is refused here:

* bytes after the datum, or after the records that a block promises;
* numbers longer than ten bytes, and an ``int`` outside of 32 bits;
* negative indices of a union or an enum, which Python counts from the end;
* a block count of ``-2**63``, which fastavro takes for an empty array;
* at parsing, schemas that hold themselves, whose record or arrays' items take no bytes, or that are
  nested deeper or larger than any survey's: a few bytes of such data may ask for any amount
  of work;
* schemas that Avro forbids and fastavro reads: names of fields that are none, a union in a
  union or with a type twice, a fixed whose size is no number.

Entries of a container's header that nobody asks for may hold any bytes; fastavro wants text.

Schemas with maps, with unions of several types or with rarer logical types are decoded by
fastavro into the same kind of frame; ``ColumnDecoder.compiled`` tells.
"""

from broker.surveys.avro.container import (
    ContainerHeader,
    container_from_body,
    correct_container,
    decode_container,
    decode_record,
    read_header,
    write_container,
)
from broker.surveys.avro.decoder import ColumnDecoder, Decoded
from broker.surveys.avro.schema import AvroSchema, correct_header

__all__ = [
    "AvroSchema",
    "ColumnDecoder",
    "ContainerHeader",
    "Decoded",
    "container_from_body",
    "correct_container",
    "correct_header",
    "decode_container",
    "decode_record",
    "read_header",
    "write_container",
]
