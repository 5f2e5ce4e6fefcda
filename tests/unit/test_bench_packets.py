"""What benchmarks measure with."""

from pathlib import Path

import pytest

from broker.apps.benchmarks._packets import packets
from broker.errors import UsageError


def test_a_folder_without_usable_packets_is_refused(tmp_path: Path):
    """In words, before anything is measured."""
    (tmp_path / "x.avro").write_bytes(b"no packet")

    with pytest.raises(UsageError, match="holds no packet"):
        packets(tmp_path)
