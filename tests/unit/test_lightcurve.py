"""Light curves from packets: signs, errors, limits, repeats and order."""

import io
from importlib.resources import files
from pathlib import Path

import fastavro
import numpy as np
import polars as pl
import pytest

from broker.alerts.lightcurve import LightCurve, build_lightcurves, load_photometry_map
from broker.errors import ConfigError


def photometry(survey: str):
    """Return a survey's photometry map."""
    return load_photometry_map(
        files("broker.surveys").joinpath(survey, "photometry.yaml").read_text()
    )


MAGS = photometry("ztf")
FLUXES = photometry("lsst")


def epoch(jd: float, mag: float | None = 20.0, **fields) -> dict:
    """Make an epoch in the survey's own words."""
    values = {"jd": jd, "fid": 1, "magpsf": mag, "sigmapsf": 0.1, "magzpsci": 25.0}
    return values | {"isdiffpos": "t", "diffmaglim": 20.5} | fields


def alert(trigger: dict, *history: dict, **parts) -> dict:
    """Make a packet."""
    packet = {"objectId": "A", "candid": 7, "candidate": trigger}
    return packet | {"prv_candidates": list(history) or None} | parts


def test_flux_and_error():
    """A magnitude of 20 on zero point 25 is a flux of 100, its error follows Pogson."""
    curve = build_lightcurves([alert(epoch(2460000.5))], MAGS)[0]

    assert curve.flux.tolist() == pytest.approx([100.0])
    assert curve.fluxerr.tolist() == pytest.approx([100 * 0.1 * np.log(10) / 2.5])
    assert curve.mjd.tolist() == [60000.0]
    assert (curve.object_id, curve.source_id, curve.band.tolist()) == ("A", 7, ["ztfg"])


@pytest.mark.parametrize(("sign", "flux"), [("t", 100), ("1", 100), ("f", -100), ("0", -100)])
def test_sign(sign, flux):
    """A negative difference is a negative flux."""
    curve = build_lightcurves([alert(epoch(2460000.5, isdiffpos=sign))], MAGS)[0]

    assert curve.flux.tolist() == pytest.approx([flux])


def test_limit():
    """A non-detection is a limit: zero flux, one sigma as error."""
    limit = epoch(2459999.5, None, sigmapsf=None, isdiffpos=None)

    curve = build_lightcurves([alert(epoch(2460000.5), limit)], MAGS)[0]

    assert curve.kind.tolist() == ["limit", "detection"]
    assert curve.flux[0] == 0
    assert curve.fluxerr[0] == pytest.approx(10 ** (0.4 * 4.5) / 5)


def test_history_null():
    """An absent history leaves the trigger alone."""
    assert build_lightcurves([alert(epoch(2460000.5))], MAGS)[0].mjd.size == 1


@pytest.mark.parametrize("mag", [None, float("nan")])
def test_missing_magnitude(mag):
    """An epoch with neither magnitude nor limit is left out."""
    empty = epoch(2459999.5, mag, diffmaglim=None)

    assert build_lightcurves([alert(epoch(2460000.5), empty)], MAGS)[0].mjd.size == 1


def test_repeats_and_order():
    """The same epoch, rounded differently, is kept once; points are in order of time."""
    packet = alert(epoch(2460000.5), epoch(2460000.5000004), epoch(2459998.5), epoch(2459999.5))

    curve = build_lightcurves([packet], MAGS)[0]

    assert curve.mjd.round(3).tolist() == [59998.0, 59999.0, 60000.0]


def test_detection_before_limit():
    """A detection wins over a limit of the same epoch."""
    limit = epoch(2460000.5, None, sigmapsf=None)

    assert build_lightcurves([alert(limit, epoch(2460000.5))], MAGS)[0].kind.tolist() == [
        "detection"
    ]


def test_bands_are_separate():
    """Two bands at one time are two points."""
    curve = build_lightcurves([alert(epoch(2460000.5), epoch(2460000.5, fid=2))], MAGS)[0]

    assert sorted(curve.band.tolist()) == ["ztfg", "ztfr"]


def test_forced_photometry():
    """Forced photometry is there beside the detections, its sentinels are not."""
    forced = {"jd": 2459990.5, "fid": 2, "magzpsci": 26.0, "forcediffimflux": -3.0}
    good, bad = forced | {"forcediffimfluxunc": 2.0}, forced | {"forcediffimfluxunc": -99999.0}

    curve = build_lightcurves([alert(epoch(2460000.5), fp_hists=[good, bad])], MAGS)[0]

    assert curve.kind.tolist() == ["forced", "detection"]
    assert (curve.flux[0], curve.fluxerr[0], curve.zp[0]) == (-3.0, 2.0, 26.0)


def test_stored_history():
    """Stored epochs of the object join those of the packet."""
    stored = [[epoch(2459900.5), epoch(2460000.5)]]

    curve = build_lightcurves([alert(epoch(2460000.5))], MAGS, stored)[0]

    assert curve.mjd.tolist() == [59900.0, 60000.0]


def test_flux_survey():
    """Fluxes in nJy keep sign and error, on zero point 31.4."""
    source = {"midpointMjdTai": 60000.0, "band": "r", "psfFlux": -5.0, "psfFluxErr": 2.0}
    packet = {"diaSource": source | {"diaSourceId": 3, "diaObjectId": 2**53 + 1}}

    curve = build_lightcurves([packet], FLUXES)[0]

    assert (curve.object_id, curve.source_id) == (str(2**53 + 1), 3)
    assert (curve.flux[0], curve.fluxerr[0], curve.zp[0]) == (-5.0, 2.0, 31.4)
    assert curve.band.tolist() == ["lsstr"]


def test_batch_of_rows():
    """Rows of a frame give the same light curves as packets, alert by alert."""
    packets = [alert(epoch(2460000.5), epoch(2459999.5)), alert(epoch(2460001.5, 19.0))]

    from_frame = build_lightcurves(pl.DataFrame(packets), MAGS)

    for one, other in zip(build_lightcurves(packets, MAGS), from_frame, strict=True):
        assert one.flux.tolist() == other.flux.tolist()


def test_empty_batch():
    """No alerts give no light curves."""
    assert build_lightcurves([], MAGS) == []


def test_wrong_map():
    """A map with an unknown key is refused by name."""
    with pytest.raises(ConfigError, match="nonsense"):
        load_photometry_map("nonsense: 1")


def test_select():
    """A selection keeps all columns in step."""
    curve = LightCurve.of_detections(
        "A", 1, np.array([2.0, 1.0]), np.array(["x", "y"]), np.array([3.0, 4.0]), np.ones(2)
    )

    assert curve.mjd.tolist() == [1.0, 2.0]
    assert curve.select(curve.band == "x").flux.tolist() == [3.0]


def test_real_object(shared_data: Path):
    """The 34 packets of one supernova hold 34 distinct detections."""
    paths = (shared_data / "ztf" / "pittgoogle-ZTF21abiuvdk").glob("*.avro")
    packets = [next(fastavro.reader(io.BytesIO(path.read_bytes()))) for path in paths]
    packets.sort(key=lambda packet: packet["candidate"]["jd"])
    stored = [p for packet in packets for p in [packet["candidate"], *packet["prv_candidates"]]]

    curve = build_lightcurves(packets[-1:], MAGS, [stored])[0].detections()

    assert curve.mjd.size == 34
    assert sorted(curve.band.tolist()).count("ztfg") == 18
