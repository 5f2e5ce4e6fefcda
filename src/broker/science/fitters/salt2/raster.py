"""A small raster canvas: antialiased lines, markers and text, written as a palette PNG."""

import struct
import zlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

LEVELS = 15
"""Shades of each colour, from nearly white to full."""

_SOLID = 5


class Canvas:
    """Pixels of a few colours, each in shades towards white.

    Parameters
    ----------
    width, height : int
        Size in pixels.
    colours : sequence of tuple
        RGB of each colour; at most seventeen.
    """

    def __init__(self, width: int, height: int, colours: list[tuple[int, int, int]]) -> None:
        self.pixels = np.zeros((height, width), np.uint8)
        self.colours = colours
        self._known: dict[tuple[int, int], tuple[NDArray[np.intp], Pixels, Pixels]] = {}
        self._places: list[NDArray[np.intp]] = []
        self._levels: list[Pixels] = []
        self._shades: list[Pixels] = []

    def fill(self, x0: int, y0: int, x1: int, y1: int, colour: int, level: int = LEVELS) -> None:
        """Fill a rectangle, ends excluded."""
        self.pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = colour * LEVELS + level

    def frame(self, box: "Box", colour: int, level: int) -> None:
        """Draw the outline of a box."""
        self.fill(box.x0, box.y0, box.x1, box.y0 + 1, colour, level)
        self.fill(box.x0, box.y1 - 1, box.x1, box.y1, colour, level)
        self.fill(box.x0, box.y0, box.x0 + 1, box.y1, colour, level)
        self.fill(box.x1 - 1, box.y0, box.x1, box.y1, colour, level)

    def shade(self, box: "Box", low: Array, high: Array, colour: int, level: int) -> None:
        """Fill between two curves given at every column of a box, in pixels from the top."""
        top = np.clip(np.ceil(np.minimum(low, high)), box.y0 + 1, box.y1 - 1).astype(np.intp)
        bottom = np.clip(np.floor(np.maximum(low, high)), box.y0, box.y1 - 2).astype(np.intp)
        rows = top + np.arange(max(int((bottom - top).max(initial=0)) + 1, 0))[:, None]
        inside = rows <= bottom
        columns = np.broadcast_to(np.arange(box.x0, box.x1), rows.shape)
        self.pixels[rows[inside], columns[inside]] = colour * LEVELS + level

    def curve(self, box: "Box", y: Array, colour: int, width: float = 2.0) -> None:
        """Draw an antialiased curve of rows at every column of a box; NaN breaks it."""
        slope = np.gradient(y)
        shown = np.flatnonzero(np.isfinite(slope))
        y, slope = y[shown], slope[shown]
        across = np.sqrt(1 + slope**2)
        reach = int(np.ceil(min(np.nanmax(across, initial=1.0), 30.0) * (width / 2 + 1)))
        offsets = np.arange(-reach, reach + 1)[:, None]
        rows = np.floor(y) + offsets
        cover = np.clip(width / 2 + 0.5 - np.abs(rows - y) / across, 0, 1)
        columns = np.broadcast_to(box.x0 + shown, rows.shape)
        inside = (rows > box.y0) & (rows < box.y1 - 1) & (cover > 0.05)
        rows = rows[inside].astype(np.intp)
        self._blend(rows, columns[inside], cover[inside], colour)

    def stamp(self, sprite: "Sprite", x: int, y: int, colour: int) -> None:
        """Put a small mask with its top left corner at (x, y) on top of everything.

        Masks are collected and drawn together, in order, when the picture is encoded.
        """
        height, width = self.pixels.shape
        if x < 0 or y < 0 or y + sprite.height > height or x + sprite.width > width:
            return
        key = (id(sprite), colour)
        if (known := self._known.get(key)) is None:
            shades = sprite.levels + np.uint8(colour * LEVELS)
            known = (sprite.rows * width + sprite.columns, sprite.levels, shades)
            self._known[key] = known
        offsets, levels, shades = known
        self._places.append(offsets + (y * width + x))
        self._levels.append(levels)
        self._shades.append(shades)

    def _flush(self) -> None:
        """Draw the collected masks."""
        if not self._places:
            return
        places, levels = np.concatenate(self._places), np.concatenate(self._levels)
        flat = self.pixels.reshape(-1)
        keep = (levels >= _SOLID) | (flat[places] == 0)
        flat[places[keep]] = np.concatenate(self._shades)[keep]
        self._places, self._levels, self._shades = [], [], []

    def text(self, x: float, y: int, words: str, colour: int, size: int = 13) -> int:
        """Write from (x, y), the top left corner; return where the next letter would go."""
        for letter in words:
            sprite, advance, top, left = _glyph(letter, size)
            if sprite.levels.size:
                self.stamp(sprite, round(x) + left, y + top, colour)
            x += advance
        return round(x)

    def png(self) -> bytes:
        """Encode as a PNG with a palette."""
        self._flush()
        height, width = self.pixels.shape
        rows = np.zeros((height, width + 1), np.uint8)
        rows[:, 1:] = self.pixels
        header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
        parts = (
            (b"IHDR", header),
            (b"PLTE", _palette(self.colours)),
            (b"IDAT", zlib.compress(rows.tobytes(), 1)),
            (b"IEND", b""),
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)

    def _blend(self, rows: Any, columns: Any, cover: Array, colour: int) -> None:
        level = _levels(cover)
        under = self.pixels[rows, columns]
        keep = (level >= _SOLID) | ((level > 0) & (under == 0))
        self.pixels[rows[keep], columns[keep]] = level[keep] + colour * LEVELS


class Sprite(NamedTuple):
    """Pixels of a small mask that are not empty, and its size."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    levels: Pixels
    height: int
    width: int


class Box:
    """A rectangle of pixels that shows a range of data.

    Parameters
    ----------
    pixels : tuple of int
        Left, top, right and bottom edge.
    x_range, y_range : tuple of float
        Data at the edges; y grows upwards.
    """

    def __init__(
        self,
        pixels: tuple[int, int, int, int],
        x_range: tuple[float, float],
        y_range: tuple[float, float],
    ) -> None:
        self.x0, self.y0, self.x1, self.y1 = pixels
        self.x_range, self.y_range = x_range, y_range

    def x(self, value: Any) -> Any:
        """Return the pixel column of a value."""
        low, high = self.x_range
        return self.x0 + (np.asarray(value) - low) / (high - low) * (self.x1 - self.x0 - 1)

    def y(self, value: Any) -> Any:
        """Return the pixel row of a value."""
        low, high = self.y_range
        return self.y1 - 1 - (np.asarray(value) - low) / (high - low) * (self.y1 - self.y0 - 1)

    def columns(self) -> Array:
        """Return the data value at every pixel column."""
        return np.linspace(*self.x_range, self.x1 - self.x0)


@lru_cache
def disc(radius: float, *, hollow: bool = False) -> Sprite:
    """Return an antialiased disc or ring."""
    half = int(np.ceil(radius)) + 1
    grid = np.arange(-half, half + 1)
    distance = np.hypot(grid[:, None], grid)
    cover = np.clip(radius + 0.5 - distance, 0, 1)
    if hollow:
        cover = cover - np.clip(radius - 0.9 - distance, 0, 1)
    return _sprite(cover)


@lru_cache
def arrow(half: int = 4) -> Sprite:
    """Return a filled triangle that points down."""
    rows = np.arange(2 * half)[:, None]
    columns = np.abs(np.arange(-half, half + 1))
    return _sprite(0.55 * np.clip(half + 0.5 - rows / 2 - columns, 0, 1))


def _levels(cover: Array) -> Pixels:
    return np.asarray(cover * LEVELS + 0.5, np.uint8)


def _sprite(cover: Array) -> Sprite:
    levels = _levels(cover)
    rows, columns = np.nonzero(levels)
    return Sprite(rows, columns, levels[rows, columns], *levels.shape)


def text_width(words: str, size: int = 13) -> float:
    """Return the width of a text in pixels."""
    return float(sum(_glyph(letter, size)[1] for letter in words))


def ticks(low: float, high: float, count: int) -> Array:
    """Return round values within a range, about `count` of them."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return np.asarray(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0)


def _palette(colours: list[tuple[int, int, int]]) -> bytes:
    """Return the palette: white, then the shades of each colour."""
    shades = np.arange(1, LEVELS + 1)[:, None] / LEVELS
    tables = [255 + shades * (np.array(colour) - 255) for colour in colours]
    return b"\xff\xff\xff" + np.round(np.concatenate(tables)).astype(np.uint8).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache
def _font(size: int) -> Any:
    """Return DejaVu Sans, which matplotlib carries, or Pillow's own font."""
    from PIL import ImageFont

    spec = find_spec("matplotlib")
    folder = Path(spec.origin or "").parent if spec else Path()
    file = folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size) if file.exists() else ImageFont.load_default(size)


@lru_cache(maxsize=1024)
def _glyph(letter: str, size: int) -> tuple[Sprite, float, int, int]:
    """Return a letter's mask, advance and offset from the pen."""
    font = _font(size)
    left, top, right, bottom = font.getbbox(letter)
    advance = float(font.getlength(letter))
    if right <= left or bottom <= top:
        return _sprite(np.zeros((0, 0))), advance, 0, 0
    mask = font.getmask(letter)
    alpha = np.array(mask, np.float64).reshape(mask.size[1], mask.size[0]) / 255
    return _sprite(alpha), advance, int(top), int(left)
