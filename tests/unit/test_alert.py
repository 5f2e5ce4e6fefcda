"""One alert in generic words."""

import pytest

from broker.surveys import get_survey, open_alert
from broker.surveys.example import encode_as_sent, example_packet
from broker.surveys.ztf.generator import encode_packet, make_packet


def lsst(version="v11_1", **overrides):
    """Return an example LSST alert."""
    survey = get_survey("lsst")
    schema = survey.schemas.get(version)
    return open_alert(encode_as_sent(survey, schema, example_packet(schema, **overrides)))


def ztf(**overrides):
    """Return a made ZTF alert."""
    return open_alert(encode_packet(make_packet(**overrides)))


def test_a_ztf_alert_speaks_generic_words():
    """Ids, position, time and band come from the schema map."""
    alert = ztf(candid=12, ra=10.5, dec=-3.5, jd=2460506.75, fid=3)
    words = (alert.object_id, alert.source_id, alert.ra, alert.dec, alert.mjd, alert.band)
    assert words == ("ZTF24aaaaaaa", 12, 10.5, -3.5, 60506.25, "i")


def test_an_lsst_alert_speaks_generic_words():
    """The same words mean LSST's fields; the time scale is TAI."""
    alert = lsst(diaSource={"psfFlux": 250.0, "band": "y"})
    assert (alert.mjd, alert.time_scale, alert.band, alert.flux) == (60506.0, "tai", "y", 250.0)


def test_words_that_the_survey_lacks_are_none():
    """ZTF gives no flux."""
    assert ztf().flux is None


def test_healpix_of_a_known_position():
    """The nested indices of RA 270.1, Dec -30.2 are the published ones."""
    alert = ztf(ra=270.1, dec=-30.2)
    found = [alert.attributes[f"healpix{order}"] for order in (9, 19, 29)]
    assert found == [1839101, 1928437384743, 2022113159144974258]


def test_attributes_have_the_survey_s_id_names():
    """Nested ids are joined by underscores."""
    attributes = lsst().attributes
    assert {"diaObject_diaObjectId", "diaSource_diaSourceId"} <= set(attributes)
    assert attributes["n_previous_detections"] == 2


def test_a_solar_system_alert_has_its_own_id_attribute():
    """Without a diaObject the attribute is that of the ssSource."""
    nothing = {"diaObjectId": 0, "ssObjectId": 8}
    alert = lsst(diaObject=None, diaSource=nothing, ssSource={"ssObjectId": 8})
    assert (alert.object_id, alert.attributes["ssSource_ssObjectId"]) == (8, 8)


def test_an_alert_without_ids_still_opens():
    """Missing ids and positions are None here, and no attributes."""
    nothing = {"diaObjectId": None, "ssObjectId": None, "ra": float("nan")}
    alert = lsst(diaObject=None, diaSource=nothing, ssSource=None)
    assert (alert.object_id, alert.ra) == (None, None)
    assert "healpix9" not in alert.attributes


@pytest.mark.parametrize("nothing", [None, []])
def test_no_history_is_an_empty_sequence(nothing):
    """A null history can be looped over."""
    assert list(ztf(prv_candidates=nothing).history) == []


def test_history_and_forced_are_in_packet_order():
    """The lists are the packet's own."""
    alert = ztf()
    assert alert.history == alert.packet["prv_candidates"]
    assert alert.forced == alert.packet["fp_hists"]


def test_limits_are_no_earlier_detections():
    """Only entries with a candid count."""
    entry = make_packet()["prv_candidates"][0]
    alert = ztf(prv_candidates=[entry | {"candid": one} for one in (None, 5, None, 6)])
    assert alert.attributes["n_previous_detections"] == 2


def test_the_detection_is_the_triggering_record():
    """The record of the new detection."""
    alert = ztf(rb=0.5)
    assert alert.detection["rb"] == 0.5
