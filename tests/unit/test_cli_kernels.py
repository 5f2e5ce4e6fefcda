"""Where kernels are kept on hosts where nothing may be written."""

from pathlib import Path

import pytest

from broker.apps.cli._kernels import let_kernels_be_kept


def test_a_folder_of_its_own_where_none_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numba refuses to compile without one; what it costs and what to do are told."""
    (tmp_path / "file").touch()
    environment: dict[str, str] = {}

    let_kernels_be_kept(environment, [tmp_path / "file" / "cache"])

    assert Path(environment["NUMBA_CACHE_DIR"]).is_dir()
    assert "set NUMBA_CACHE_DIR to a folder" in capsys.readouterr().err


@pytest.mark.parametrize("given", [{}, {"NUMBA_CACHE_DIR": "/mine"}])
def test_nothing_changes_elsewhere(tmp_path: Path, given: dict[str, str]) -> None:
    """Numba finds the usual places by itself, and the user's wish counts."""
    (tmp_path / "file").touch()
    environment = dict(given)
    places = [tmp_path / "file"] if given else [tmp_path / "file", tmp_path / "not" / "yet"]

    let_kernels_be_kept(environment, places)

    assert environment == given
