"""The column decoder on any bytes: it agrees with fastavro, and reads nothing out of range."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from avro_cases import (
    SQUEEZE,
    compare,
    compare_containers,
    damage,
    make_container,
    make_schema,
    make_value,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.surveys.avro import ColumnDecoder, read_header
from broker.surveys.avro.container import blocks

_ROOT = Path(__file__).resolve().parents[2]
_REAL = _ROOT.parent / "shared" / "data"


def batch(seed: int, size: int) -> tuple[ColumnDecoder, list[bytes]]:
    """Make a decoder and whole packets for it."""
    schema, rng = make_schema(seed), random.Random(seed)
    return ColumnDecoder(schema), [make_value(rng, schema.shape) for _ in range(size)]


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_damaged_packets(seed: int) -> None:
    """Values, and what is refused, are as with fastavro for any schema and damage."""
    decoder, bodies = batch(seed, 8)
    rng = random.Random(seed)

    compare(decoder, bodies + [damage(rng, body) for body in bodies * 4])


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_every_truncation(seed: int) -> None:
    """A packet cut anywhere is refused, or what is left is a packet to fastavro too."""
    decoder, bodies = batch(seed, 1)

    compare(decoder, [bodies[0][:end] for end in range(min(len(bodies[0]), 600))])


@given(st.integers(0, 2**32), st.binary(max_size=60))
@settings(deadline=None, max_examples=40)
def test_any_bytes(seed: int, data: bytes) -> None:
    """Any bytes at all are taken as fastavro takes them."""
    compare(batch(seed, 0)[0], [data, data[1:], data * 3])


@given(st.integers(0, 2**32), st.sampled_from(sorted(SQUEEZE)))
@settings(deadline=None, max_examples=40)
def test_damaged_containers(seed: int, codec: str) -> None:
    """Columns and dicts agree for any blocks, codec and damage."""
    schema, rng = make_schema(seed), random.Random(seed)

    compare_containers(schema, [make_container(rng, schema, codec) for _ in range(8)])


def real_packets(folder: Path) -> list[bytes]:
    """Return one container of each of some schemas."""
    found = {}
    for path in sorted(folder.rglob("*.avro"))[::9]:
        payload = path.read_bytes()
        if payload.startswith(b"Obj\x01") and "other" not in path.parts:
            found.setdefault(read_header(payload).prefix, payload)
    return list(found.values())


def damage_real(folder: Path, rounds: int) -> int:
    """Compare damaged real packets; tell how many."""
    rng, count = random.Random(4), 0
    for payload in real_packets(folder):
        header = read_header(payload)
        decoder = ColumnDecoder(header.schema)
        body = next(iter(blocks(payload, header))).data
        cuts = [body[: rng.randrange(len(body))] for _ in range(rounds)]
        broken = [damage(rng, body[:9000]) + body[9000:] for _ in range(rounds)]
        if decoder.compiled and not decoder.decode([body]).errors:
            compare(decoder, [body, *cuts, *broken])
            count += 1 + 2 * rounds
    return count


def test_damaged_real_packets(shared_data: Path) -> None:
    """Real packets with bits flipped or cut anywhere are taken as fastavro takes them."""
    assert damage_real(shared_data, 10) > 100


@pytest.mark.slow
def test_no_read_is_out_of_bounds(tmp_path: Path) -> None:
    """With numba's bounds checks, the same damage raises nothing."""
    checks = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, __file__],
        cwd=_ROOT, env={**os.environ, **checks}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("checked")


def main() -> None:
    """Run everything at a fixed size, in a process of its own."""
    for seed in range(400):
        decoder, bodies = batch(seed, 4)
        rng = random.Random(seed)
        compare(decoder, bodies + [damage(rng, body) for body in bodies * 8])
        compare(decoder, [bodies[0][:end] for end in range(min(len(bodies[0]), 200))])
        codec = rng.choice(sorted(SQUEEZE))
        containers = [make_container(rng, decoder.schema, codec) for _ in range(6)]
        compare_containers(decoder.schema, containers)
    real = damage_real(_REAL, 5) if _REAL.is_dir() else 0
    print(f"checked, {real} real packets too")


if __name__ == "__main__":
    main()
