"""Containers of several alerts, taken apart into containers of one."""

import io

import fastavro

from broker.surveys.avro import container_from_body, decode_container, read_header


def split_container(payload: bytes) -> list[bytes]:
    """Return each record of a container in a container of its own, with the same schema.

    Raises
    ------
    DecodeError
        If it is not a readable container.
    """
    schema = read_header(payload).schema
    return [
        container_from_body(schema, _body(schema.fastavro, r)) for r in decode_container(payload)
    ]


def _body(schema: object, record: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()
