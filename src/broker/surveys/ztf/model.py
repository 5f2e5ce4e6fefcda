"""Records of made ZTF alerts: exposures, detections, limits and forced photometry."""

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

Record = dict[str, Any]

# Julian date of day 0 of the survey's night numbers (nid).
_NIGHT_ZERO_JD = 2457754.5
_MISSING = -999.0
_MISSING_FORCED = -99999.0
_BAND = {1: "g", 2: "r", 3: "i"}


@dataclass(frozen=True)
class Exposure:
    """One image of one quadrant.

    Attributes
    ----------
    jd : float
        Start [JD UTC].
    fid, field, rcid : int
        Filter, field and readout channel.
    limit : float
        5-sigma limiting magnitude.
    zero_point : float
        Magnitude of one count.
    """

    jd: float
    fid: int
    field: int
    rcid: int
    limit: float
    zero_point: float

    @property
    def nid(self) -> int:
        """Night number."""
        return int(self.jd - _NIGHT_ZERO_JD)

    @property
    def pid(self) -> int:
        """Image number: night, fraction of the day, detector."""
        micro_days = int((self.jd - _NIGHT_ZERO_JD) % 1 * 1e6)
        return (self.nid * 1_000_000 + micro_days) * 1000 + 600 + self.rcid // 4 + 1

    def candid(self, number: int) -> int:
        """Id of the detection with a number (below 10000) in this image."""
        return self.pid * 1_000_000 + 10_000 * (self.rcid % 4 + 1) + number

    @property
    def file_name(self) -> str:
        """Name of the difference image."""
        quadrant = f"c{self.rcid // 4 + 1:02d}_o_q{self.rcid % 4 + 1}"
        return f"ztf_{self.pid}_{self.field:06d}_z{_BAND[self.fid]}_{quadrant}_scimrefdiffimg.fits"

    @property
    def common(self) -> Record:
        """Fields that every record of this image has."""
        return {
            "jd": self.jd,
            "fid": self.fid,
            "pid": self.pid,
            "diffmaglim": self.limit,
            "pdiffimfilename": self.file_name,
            "programpi": "Kulkarni",
            "programid": 1,
            "nid": self.nid,
            "rcid": self.rcid,
            "field": self.field,
            "magzpsci": self.zero_point,
            "magzpsciunc": 8.5e-06,
            "magzpscirms": 0.031,
            "clrcoeff": -0.048,
            "clrcounc": 1.4e-05,
        }


def draw_exposure(rng: np.random.Generator, jd: float, field: int, rcid: int) -> Exposure:
    """Draw filter and depth of an image."""
    fid = int(rng.choice((1, 2, 3), p=(0.45, 0.5, 0.05)))
    limit, zero_point = rng.normal(20.4, 0.4), rng.normal(26.2, 0.1)
    return Exposure(jd, fid, field, rcid, float(limit), float(zero_point))


def draw_history(rng: np.random.Generator, now: Exposure) -> list[Exposure]:
    """Draw the earlier images of a quadrant within 30 days, oldest first."""
    days = np.sort(rng.choice(np.arange(1, 31), int(rng.integers(6, 14)), replace=False))[::-1]
    times = [now.jd - day + shift for day in days for shift in (0.0, rng.uniform(0.03, 0.08))]
    return [draw_exposure(rng, float(jd), now.field, now.rcid) for jd in times]


def night_start_jd(night: date) -> float:
    """Return the Julian date of 0 h UTC."""
    return night.toordinal() + 1721424.5


def limit_record(exposure: Exposure) -> Record:
    """Return a history entry of an image on which nothing was found."""
    return exposure.common | {"rbversion": "t17_f5_c3"}


def detection_record(rng: np.random.Generator, exposure: Exposure, mag: float) -> Record:
    """Return the fields that history entries and candidates share; ids are stand-ins."""
    error = float(np.clip(1.0857 / 5 * 10 ** (0.4 * (mag - exposure.limit)), 0.02, 0.22))
    return exposure.common | {
        "candid": exposure.candid(1000),
        "isdiffpos": "t",
        "tblid": 1000,
        "ra": 0.0,
        "dec": 0.0,
        "xpos": float(rng.uniform(20, 3050)),
        "ypos": float(rng.uniform(20, 3060)),
        "magpsf": mag,
        "sigmapsf": error,
        "chipsf": float(rng.lognormal(0, 0.4)),
        "magap": mag + float(rng.normal(0, 0.1)),
        "sigmagap": error * 1.3,
        "distnr": float(rng.uniform(0, 3)),
        "magnr": float(rng.uniform(16, 22)),
        "sigmagnr": 0.04,
        "chinr": 0.9,
        "sharpnr": 0.02,
        "sky": float(rng.normal(0, 0.4)),
        "magdiff": 0.03,
        "fwhm": 2.2,
        "classtar": 0.98,
        "mindtoedge": float(rng.uniform(20, 1500)),
        "magfromlim": exposure.limit - mag,
        "seeratio": 1.1,
        "aimage": 0.8,
        "bimage": 0.75,
        "aimagerat": 0.36,
        "bimagerat": 0.34,
        "elong": 1.08,
        "nneg": 2,
        "nbad": 0,
        "rb": 0.8,
        "ssdistnr": _MISSING,
        "ssmagnr": _MISSING,
        "ssnamenr": "null",
        "sumrat": 0.98,
        "magapbig": mag,
        "sigmagapbig": error * 1.5,
        "ranr": 0.0,
        "decnr": 0.0,
        "scorr": float(5 * 10 ** (0.4 * (exposure.limit - mag))),
        "rbversion": "t17_f5_c3",
    }


def candidate_record(rng: np.random.Generator, exposure: Exposure, mag: float) -> Record:
    """Return the record of a triggering detection; ids and position are stand-ins."""
    neighbours = {
        f"{name}{place}": value
        for place in (1, 2, 3)
        for name, value in _neighbour(rng, place).items()
    }
    return (
        detection_record(rng, exposure, mag)
        | neighbours
        | {
            "ndethist": 12,
            "ncovhist": 240,
            "jdstarthist": exposure.jd - 400.0,
            "jdendhist": exposure.jd,
            "tooflag": 0,
            "nmtchps": 8,
            "rfid": exposure.field * 1_000_000 + exposure.fid * 100_000 + exposure.rcid,
            "jdstartref": exposure.jd - 1200.0,
            "jdendref": exposure.jd - 900.0,
            "nframesref": 15,
            "dsnrms": 9.0,
            "ssnrms": 12.0,
            "dsdiff": -3.0,
            "nmatches": 900,
            "zpclrcov": -7.9e-06,
            "zpmed": exposure.zero_point,
            "clrmed": 0.7,
            "clrrms": 0.2,
            "neargaia": float(rng.uniform(1, 60)),
            "neargaiabright": _MISSING,
            "maggaia": float(rng.uniform(15, 21)),
            "maggaiabright": _MISSING,
            "exptime": 30.0,
            "drb": 0.9,
            "drbversion": "d6_m7",
        }
    )


def forced_record(rng: np.random.Generator, exposure: Exposure, flux: float) -> Record:
    """Return one entry of forced photometry; one in eight could not be measured."""
    failed = rng.random() < 0.125
    shared = exposure.common
    record = {name: shared[name] for name in ("jd", "fid", "pid", "programid", "rcid", "field")}
    record |= {name: shared[name] for name in ("diffmaglim", "clrcoeff", "clrcounc")}
    record |= {name: shared[name] for name in ("magzpsci", "magzpsciunc", "magzpscirms")}
    error = 10 ** (0.4 * (exposure.zero_point - exposure.limit)) / 5
    return record | {
        "rfid": exposure.field * 1_000_000 + exposure.fid * 100_000 + exposure.rcid,
        "sciinpseeing": 2.1,
        "scibckgnd": 210.0,
        "scisigpix": 9.5,
        "exptime": 30.0,
        "adpctdif1": 0.06,
        "adpctdif2": 0.07,
        "forcediffimflux": _MISSING_FORCED if failed else flux + rng.normal(0, error),
        "forcediffimfluxunc": _MISSING_FORCED if failed else error,
        "procstatus": "61" if failed else "0",
        "distnr": 0.5,
        "ranr": 0.0,
        "decnr": 0.0,
        "magnr": 19.0,
        "sigmagnr": 0.04,
        "chinr": 0.9,
        "sharpnr": 0.02,
    }


def _neighbour(rng: np.random.Generator, place: int) -> Record:
    return {
        "objectidps": int(rng.integers(8 * 10**16, 2 * 10**17)),
        "sgmag": float(rng.uniform(17, 22)),
        "srmag": float(rng.uniform(17, 22)),
        "simag": _MISSING,
        "szmag": _MISSING,
        "sgscore": 0.5,
        "distpsnr": 3.0 * place,
    }
