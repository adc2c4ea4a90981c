"""A seeded procedural street scene in two styles, one like a game, one like a camera.

It stands in for GTA5 and Cityscapes where neither is on disk. Both styles draw
the same kinds of things with the same 19-class labels; palette, illumination,
noise, blur, shadow and the statistics of the layout differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from dabench.data.labels import CITYSCAPES, IGNORE, LabelMap

Colour = tuple[float, float, float]
Random = np.random.Generator

VERSION = 2
"""Of the drawings: part of every name under which they are kept."""

_INDEX = {name: index for index, name in enumerate(CITYSCAPES.names)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How a domain looks.

    Attributes:
        horizon: Range of the horizon's distance from the top, as a fraction of the height.
        traffic: Most vehicles per scene.
        people: Most people per scene.
        greenery: Probability that a stretch of roadside is vegetation.
        tint: Factors of red, green and blue.
        brightness: Range of the factor on all channels.
        contrast: Factor on the distance from middle grey.
        saturation: 0 is grey, 1 as drawn.
        noise: Standard deviation of the sensor's noise, of 255.
        blur: Radius in pixels at a height of 192.
        shadow: Strength of cast shadows, 0 to 1.
        texture: Standard deviation of surface texture, of 255.
        haze: Share of light grey (175 of 255) mixed in at the horizon, less away from it.
    """

    horizon: tuple[float, float]
    traffic: int
    people: int
    greenery: float
    tint: Colour
    brightness: tuple[float, float]
    contrast: float
    saturation: float
    noise: float
    blur: float
    shadow: float
    texture: float
    haze: float


GAME = Style(
    horizon=(0.40, 0.50), traffic=4, people=4, greenery=0.30, tint=(1.06, 1.0, 0.92),
    brightness=(0.95, 1.15), contrast=1.1, saturation=1.25, noise=1.0, blur=0.0, shadow=0.25,
    texture=5.0, haze=0.05,
)  # fmt: skip
CAMERA = Style(
    horizon=(0.36, 0.48), traffic=5, people=5, greenery=0.45, tint=(0.86, 0.98, 1.08),
    brightness=(0.50, 0.85), contrast=0.8, saturation=0.55, noise=7.0, blur=0.7, shadow=0.5,
    texture=9.0, haze=0.30,
)  # fmt: skip

# Colours are drawn around these, in both styles; what the style does to them differs.
_COLOURS: dict[str, tuple[Colour, ...]] = {
    "road": ((105, 105, 108),),
    "sidewalk": ((165, 155, 148),),
    "building": ((170, 120, 95), (190, 180, 165), (130, 130, 140), (200, 165, 120)),
    "wall": ((150, 145, 140),),
    "fence": ((120, 90, 60),),
    "pole": ((70, 72, 75),),
    "traffic light": ((45, 48, 45),),
    "traffic sign": ((215, 60, 50), (60, 90, 200), (235, 200, 60)),
    "vegetation": ((70, 120, 50), (50, 95, 45)),
    "terrain": ((120, 150, 80),),
    "sky": ((135, 180, 230),),
    "person": ((180, 70, 80), (60, 70, 130), (80, 80, 80)),
    "rider": ((220, 130, 50),),
    "car": ((190, 30, 35), (40, 60, 150), (220, 220, 225), (40, 40, 45)),
    "truck": ((225, 215, 190),),
    "bus": ((230, 180, 40),),
    "train": ((110, 40, 110),),
    "motorcycle": ((30, 30, 35),),
    "bicycle": ((40, 110, 120),),
}


class _Canvas:
    """An image and its label map, drawn together."""

    def __init__(self, height: int, width: int, random: Random) -> None:
        self.height, self.width, self.random = height, width, random
        self.image = Image.new("RGB", (width, height))
        self.label = Image.new("L", (width, height), IGNORE)
        self._paint = ImageDraw.Draw(self.image)
        self._mark = ImageDraw.Draw(self.label)

    def colour(self, name: str, spread: float = 14.0) -> tuple[int, int, int]:
        """A colour of a class, a little different each time."""
        choices = _COLOURS[name]
        base = choices[int(self.random.integers(len(choices)))]
        red, green, blue = np.clip(self.random.normal(base, spread), 0, 255).astype(int).tolist()
        return red, green, blue

    def polygon(self, name: str, points: list[tuple[float, float]], fill: Colour) -> None:
        """A filled polygon; points are (x, y) in pixels."""
        self._paint.polygon(points, fill=tuple(int(value) for value in fill))
        self._mark.polygon(points, fill=_INDEX[name])

    def box(self, name: str, x: float, y: float, w: float, h: float, fill: Colour) -> None:
        """A rectangle from its upper left corner."""
        self.polygon(name, [(x, y), (x + w, y), (x + w, y + h), (x, y + h)], fill)

    def ellipse(self, name: str, x: float, y: float, w: float, h: float, fill: Colour) -> None:
        """An ellipse from its upper left corner."""
        self._paint.ellipse((x, y, x + w, y + h), fill=tuple(int(value) for value in fill))
        self._mark.ellipse((x, y, x + w, y + h), fill=_INDEX[name])

    def detail(self, x: float, y: float, w: float, h: float, fill: Colour) -> None:
        """Paint that keeps the label below it: windows, tyres, lines."""
        self._paint.rectangle((x, y, x + w, y + h), fill=tuple(int(value) for value in fill))


def draw_scene(
    style: Style, seed: tuple[int, ...], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], LabelMap]:
    """Draws one frame.

    Args:
        style: `GAME` or `CAMERA`.
        seed: Equal seeds give equal frames.
        height: In pixels.
        width: In pixels.

    Returns:
        The (H, W, 3) image and the (H, W) map of Cityscapes classes.
    """
    random = np.random.default_rng(seed)
    canvas = _Canvas(height, width, random)
    horizon = height * random.uniform(*style.horizon)
    vanishing = width * random.uniform(0.4, 0.6)
    canvas.box("sky", 0, 0, width, height, canvas.colour("sky", 10))
    for side in (-1, 1):
        _roadside(canvas, style, side, horizon, vanishing)
    _ground(canvas, style, horizon, vanishing)
    _furniture(canvas, style, horizon, vanishing)
    _traffic(canvas, style, horizon, vanishing)
    return _develop(canvas, style, horizon), np.asarray(canvas.label)


def _roadside(canvas: _Canvas, style: Style, side: int, horizon: float, vanishing: float) -> None:
    """Buildings, trees, walls and fences, from the distance to the front."""
    random, height, width = canvas.random, canvas.height, canvas.width
    edge = 0.0 if side < 0 else float(width)
    depths = np.sort(random.uniform(0.05, 1.0, size=7))
    for near, far in zip(depths[1:], depths[:-1], strict=True):
        x0, x1 = (vanishing + (edge - vanishing) * d for d in (far, near))
        foot0, foot1 = (horizon + height * 0.12 * d for d in (far, near))
        tall = height * random.uniform(0.25, 0.75)
        top0, top1 = (horizon - tall * d for d in (far, near))
        kind = random.random()
        corners = [(x0, top0), (x1, top1), (x1, foot1), (x0, foot0)]
        if kind < style.greenery:
            _tree(canvas, x0, x1, min(top0, top1), max(foot0, foot1))
        elif kind < style.greenery + 0.16:
            name = "wall" if random.random() < 0.5 else "fence"
            low = [(x0, foot0 - (foot0 - top0) * 0.35), (x1, foot1 - (foot1 - top1) * 0.35)]
            fill = canvas.colour(name)
            canvas.polygon(name, [*low, (x1, foot1), (x0, foot0)], fill)
            if name == "fence":
                for x in np.arange(min(x0, x1), max(x0, x1), max(2.0, width * 0.012)):
                    canvas.detail(x, low[1][1], 0.5, (foot1 - low[1][1]), (40, 35, 30))
        else:
            fill = canvas.colour("building")
            canvas.polygon("building", corners, fill)
            _windows(canvas, x0, x1, max(top0, top1), min(foot0, foot1), fill)


def _windows(canvas: _Canvas, x0: float, x1: float, top: float, foot: float, fill: Colour) -> None:
    left, right = sorted((x0, x1))
    step = max(5.0, (right - left) / 5)
    dark = tuple(value * 0.55 for value in fill)
    for x in np.arange(left + step * 0.3, right - step * 0.4, step):
        for y in np.arange(top + step * 0.4, foot - step, step):
            canvas.detail(x, y, step * 0.4, step * 0.5, (dark[0], dark[1], dark[2]))


def _tree(canvas: _Canvas, x0: float, x1: float, top: float, foot: float) -> None:
    left, right = sorted((x0, x1))
    random = canvas.random
    for _ in range(6):
        w = (right - left) * random.uniform(0.5, 0.9) + 3
        h = (foot - top) * random.uniform(0.35, 0.7) + 3
        x = random.uniform(left, max(left + 1, right - w * 0.5)) - w * 0.1
        y = random.uniform(top, max(top + 1, foot - h))
        canvas.ellipse("vegetation", x, y, w, h, canvas.colour("vegetation", 12))


def _ground(canvas: _Canvas, style: Style, horizon: float, vanishing: float) -> None:
    """Terrain or pavement on both sides, the road between them, its markings."""
    random, height, width = canvas.random, canvas.height, canvas.width
    top = horizon + height * 0.02
    for side in (-1, 1):
        edge = 0.0 if side < 0 else float(width)
        name = "terrain" if random.random() < style.greenery * 0.6 else "sidewalk"
        corner = [(edge, horizon + height * 0.10), (vanishing, top)]
        canvas.polygon(
            name, [*corner, (vanishing, height), (edge, height)], canvas.colour(name, 10)
        )
    left, right = random.uniform(-0.05, 0.25) * width, random.uniform(0.75, 1.05) * width
    grey = canvas.colour("road", 8)
    near = [(right, height), (left, height)]
    canvas.polygon("road", [(vanishing - 3, top), (vanishing + 3, top), *near], grey)
    for depth in np.linspace(0.15, 0.95, 6):
        x = vanishing + ((left + right) / 2 - vanishing) * depth
        y = top + (height - top) * depth
        canvas.detail(x, y, 1 + 3 * depth, height * 0.05 * depth, (205, 205, 200))


def _furniture(canvas: _Canvas, style: Style, horizon: float, vanishing: float) -> None:
    """Poles with lights and signs."""
    random, height, width = canvas.random, canvas.height, canvas.width
    for _ in range(int(random.integers(2, 6))):
        depth = random.uniform(0.3, 1.0)
        side = random.choice((-1, 1))
        x = vanishing + side * width * random.uniform(0.38, 0.5) * depth
        foot = horizon + height * 0.16 * depth + 2
        tall = height * random.uniform(0.30, 0.5) * depth
        thick = max(2.0, width * 0.012 * depth)
        canvas.box("pole", x, foot - tall, thick, tall, canvas.colour("pole", 8))
        size = max(4.0, height * 0.075 * depth)
        kind = random.random()
        if kind < 0.4:
            canvas.box("traffic light", x - size * 0.3, foot - tall, size * 0.8, size * 1.5,
                       canvas.colour("traffic light", 6))  # fmt: skip
            lamp = ((230, 60, 50), (90, 220, 110))[int(random.integers(2))]
            canvas.detail(x, foot - tall + size * 0.3, size * 0.25, size * 0.25, lamp)
        elif kind < 0.85:
            canvas.ellipse("traffic sign", x - size * 0.5, foot - tall, size * 1.2, size * 1.2,
                           canvas.colour("traffic sign", 12))  # fmt: skip


def _traffic(canvas: _Canvas, style: Style, horizon: float, vanishing: float) -> None:
    """Vehicles and people, far ones first."""
    random, height, width = canvas.random, canvas.height, canvas.width
    makers: list[Callable[[float, float, float], None]] = []
    vehicles = ("car", "car", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    for _ in range(int(random.integers(2, style.traffic + 1))):
        name = vehicles[int(random.integers(len(vehicles)))]
        makers.append(partial(_vehicle, canvas, name))
    people = int(random.integers(1, style.people + 1))
    makers += [partial(_person, canvas, "person")] * people
    depths = np.sort(random.uniform(0.25, 1.0, size=len(makers)))
    for make, depth in zip(random.permutation(np.array(makers, dtype=object)), depths, strict=True):
        x = vanishing + width * random.uniform(-0.45, 0.45) * (0.4 + 0.6 * depth)
        make(x, horizon + height * 0.45 * depth, height * 0.42 * depth)


def _vehicle(canvas: _Canvas, name: str, x: float, foot: float, scale: float) -> None:
    fill = canvas.colour(name)
    if name in ("motorcycle", "bicycle"):
        _person(canvas, "rider", x, foot - scale * 0.15, scale * 0.9)
        for offset in (-0.38, 0.08):
            canvas.ellipse(name, x + scale * offset, foot - scale * 0.35, scale * 0.32,
                           scale * 0.35, fill)  # fmt: skip
        canvas.box(name, x - scale * 0.25, foot - scale * 0.33, scale * 0.5, scale * 0.14, fill)
        return
    w, h = {"car": (1.0, 0.45), "truck": (1.1, 0.9), "bus": (1.3, 0.85), "train": (1.8, 0.8)}[name]
    w, h = w * scale, h * scale
    canvas.box(name, x - w / 2, foot - h * 0.6, w, h * 0.52, fill)
    inset = 0.16 if name == "car" else 0.0
    canvas.box(name, x - w * (0.5 - inset), foot - h, w * (1 - 2 * inset), h * 0.45, fill)
    canvas.detail(x - w * (0.42 - inset), foot - h * 0.92, w * (0.84 - 2 * inset), h * 0.24,
                  (60, 70, 85))  # fmt: skip
    for offset in (-0.38, 0.2):
        canvas.ellipse(name, x + w * offset, foot - h * 0.25, w * 0.18, h * 0.25, (25, 25, 28))


def _person(canvas: _Canvas, name: str, x: float, foot: float, scale: float) -> None:
    fill = canvas.colour(name)
    w = max(2.0, scale * 0.22)
    canvas.box(name, x - w / 2, foot - scale * 0.75, w, scale * 0.45, fill)
    legs = (fill[0] * 0.5, fill[1] * 0.5, fill[2] * 0.6)
    canvas.box(name, x - w * 0.4, foot - scale * 0.32, w * 0.8, scale * 0.32, legs)
    canvas.ellipse(name, x - w * 0.35, foot - scale * 0.95, w * 0.7, scale * 0.22, (205, 165, 140))


def _develop(canvas: _Canvas, style: Style, horizon: float) -> npt.NDArray[np.uint8]:
    """What light, air, lens and sensor of the style make of the drawing."""
    random, height, width = canvas.random, canvas.height, canvas.width
    texture = random.normal(0, style.texture, (height // 4 + 1, width // 4 + 1))
    coarse = np.asarray(
        Image.fromarray(texture.astype(np.float32)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
    )
    pixels = np.asarray(canvas.image, np.float32) + coarse[..., None]
    pixels *= _shade(random, style, height, width)
    rows = np.arange(height, dtype=np.float32)[:, None, None]
    nearness = np.exp(-np.abs(rows - horizon) / (0.25 * height))
    pixels += (np.float32(175) - pixels) * (style.haze * nearness)
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + style.saturation * (pixels - grey)
    pixels = 128 + style.contrast * (pixels - 128)
    pixels *= np.float32(random.uniform(*style.brightness)) * np.array(style.tint, np.float32)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if style.blur:
        image = image.filter(ImageFilter.GaussianBlur(style.blur * height / 192))
    noisy = np.asarray(image, np.float32) + random.normal(0, style.noise, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _shade(random: Random, style: Style, height: int, width: int) -> npt.NDArray[np.float32]:
    """A soft shadow across the ground, (H, W, 1) factors."""
    shade = Image.new("L", (width, height), 255)
    x, span = random.uniform(-0.2, 0.9) * width, random.uniform(0.2, 0.6) * width
    slant = random.uniform(-0.5, 0.5) * width
    top = height * 0.5
    corners = [(x, top), (x + span, top), (x + span + slant, height), (x + slant, height)]
    ImageDraw.Draw(shade).polygon(corners, fill=int(255 * (1 - style.shadow)))
    soft = shade.filter(ImageFilter.GaussianBlur(height / 40))
    factors: npt.NDArray[np.float32] = np.asarray(soft, np.float32)[..., None] / np.float32(255)
    return factors
