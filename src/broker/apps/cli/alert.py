"""``pgb alert``: one stored alert, as text, JSON, picture or Avro file."""

from pathlib import Path
from typing import Any

import click

from broker.alerts.alert import Alert
from broker.alerts.convert import clean, without_bytes
from broker.apps.cli._options import options, reading_settings_of
from broker.apps.cli._output import print_json, print_table
from broker.surveys.picture import draw_alert
from broker.wiring import Broker

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("alert_id", metavar="ID")
@options("survey", "home", "testid", "json")
@click.option("--plot", type=_FILE, help="Draw light curve and cutouts into a PNG file.")
@click.option("--avro", type=_FILE, help="Write the packet as a valid Avro container.")
def command(
    alert_id: str, as_json: bool, plot: Path | None, avro: Path | None, **flags: Any
) -> None:
    """Show a stored alert; ID is that of an alert or of an object (its latest alert).

    \b
      pgb alert ZTF21abiuvdk
      pgb alert 1654467630315015003 --json
      pgb alert ZTF21abiuvdk --plot alert.png --avro alert.avro
    """
    broker = Broker(reading_settings_of(**flags))
    alerts = list(broker.archive.alerts(alert_id))
    latest = alerts[0]
    if avro:
        avro.write_bytes(latest.to_container())
    if plot:
        plot.write_bytes(draw_alert(latest))
    if as_json:
        print_json(clean(without_bytes(latest.packet)))
    else:
        _show(latest, len(alerts))
        for path in filter(None, (plot, avro)):
            click.echo(f"written: {path}")


def _show(alert: Alert, stored: int) -> None:
    rows = [
        ("object", str(alert.object_id)),
        ("alert", str(alert.source_id)),
        ("survey and schema", f"{alert.survey} {alert.schema_version}"),
        ("ra, dec", f"{alert.ra:.6f}, {alert.dec:+.6f} deg"),
        ("mjd", f"{alert.mjd:.6f}"),
        ("band", alert.band or "–"),
        ("previous detections", str(alert.attributes["n_previous_detections"])),
        ("packet", f"{len(alert.payload):,} bytes"),
        ("stored alerts of the object", str(stored)),
    ]
    print_table("", ("", "latest alert"), rows)
