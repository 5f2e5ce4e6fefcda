"""Settings: file < environment < flag."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.apps.cli import cli
from broker.config import Settings, load_settings
from broker.errors import ConfigError


def test_a_flag_wins_over_environment_and_file(tmp_path: Path):
    """The nearest word counts."""
    file = tmp_path / "pgb.toml"
    file.write_text('home = "from file"\nworker = "file"\ntestid = "file"\n')
    environ = {"PGB_HOME": "from environment", "PGB_WORKER": "environment"}

    settings = load_settings(file, environ, home="from flag")

    assert (settings.home, settings.worker, settings.testid) == ("from flag", "environment", "file")


def test_the_file_may_be_named_by_the_environment(tmp_path: Path):
    """PGB_CONFIG points to it."""
    file = tmp_path / "pgb.toml"
    file.write_text("batch_alerts = 7\n")

    assert load_settings(environ={"PGB_CONFIG": str(file)}).batch_alerts == 7


def test_an_unknown_setting_is_named(tmp_path: Path):
    """A slip of the pen is not ignored."""
    file = tmp_path / "pgb.toml"
    file.write_text("batch_alert = 7\n")

    with pytest.raises(ConfigError, match="batch_alert"):
        load_settings(file, {})


def test_a_wrong_type_is_named():
    """The message tells setting, type and value."""
    with pytest.raises(ConfigError, match=r"batch_alerts.*int.*many"):
        load_settings(environ={"PGB_BATCH_ALERTS": "many"})


def test_filters_are_split_at_the_path_separator():
    """As in PATH."""
    assert load_settings(environ={"PGB_FILTERS": "a.py:b.sql"}).filters == ("a.py", "b.sql")


def test_every_setting_says_what_it_is():
    """The doc string is the documentation."""
    assert all(field.metadata["doc"] for field in fields(Settings))


def test_config_is_listed_as_json_without_secrets(monkeypatch: pytest.MonkeyPatch):
    """Of a secret it is told only that there is one."""
    monkeypatch.setenv("PGB_KAFKA_PASSWORD", "hunter2")

    done = CliRunner().invoke(cli, ["config", "--json"])

    assert json.loads(done.output)["kafka_password"] == "Secret(…)"
    assert "hunter2" not in done.output
