"""The picture of one alert: its light curve and cutouts."""

from broker.alerts.alert import Alert
from broker.alerts.lightcurve import build_lightcurves
from broker.alerts.plots import plot_alert, points_of
from broker.errors import UsageError
from broker.surveys.known import get_survey


def draw_alert(alert: Alert) -> bytes:
    """Draw an alert as a PNG file.

    Magnitudes where the survey gives magnitudes, fluxes in nJy where it gives fluxes.

    Raises
    ------
    UsageError
        If the survey's alerts have no light curve.
    """
    survey = get_survey(alert.survey)
    photometry = survey.photometry
    if photometry is None or alert.mjd is None:
        raise UsageError(f"alerts of {survey.name} have no light curve to draw")
    curve = build_lightcurves([alert.packet], photometry)[0]
    points = points_of(curve, alert.mjd, as_magnitudes=bool(photometry.epoch.mag))
    images = {kind: cutout.data for kind, cutout in alert.cutouts.items()}
    title = f"{alert.object_id}   alert {alert.source_id}"
    band = f", {alert.band} band" if alert.band else ""
    place = f"ra {alert.ra:.5f}°, dec {alert.dec:+.5f}°"
    return plot_alert(points, images, title, f"{survey.name} {alert.schema_version}, {place}{band}")
