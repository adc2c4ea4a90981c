"""The class of every pixel from a segmenter's logits.

The logits of every pixel are as many numbers as there are classes where the answer is one:
on a CPU, bringing them to a label map's size and comparing them takes as long as half of the
network, or all of it. Of the small logits that a segmenter's head puts out no more are written
here at a time than stay in the cache, and classes that can be the best nowhere in an image are
left out before. Those of the input's size differ little from one pixel to the next: where four
neighbours have the same best class, so has all that lies between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from dabench.data.labels import IGNORE

ROOM_BYTES = 1 << 20
"""Of logits written at a time, for each thread."""

Size = tuple[int, int]


def classes_at(logits: Tensor, via: Size, size: Size) -> Tensor:
    """Classes of images whose logits are brought to the network's size, and from there to another.

    Args:
        logits: (N, classes, h, w), as a segmenter's head puts them out, or of the size ``via``.
        via: (height, width) of the network's input: bilinear, corners aligned, as the published
            segmenters end.
        size: (height, width) of the result: bilinear.

    Returns:
        (N, height, width) uint8, each pixel's first class with the largest logit. Where two
        differ by no more than is rounded either may come out.
    """
    # IGNORE, the last value of a byte, is no class.
    assert logits.shape[1] < IGNORE
    logits = logits.float()
    # What is not finite would spread along rows and columns of shares that are 0.
    if not _on_cpu(logits) or not logits.sum().isfinite():
        return _plainly(logits, via, size)
    classes = _classes if logits.shape[2:] != via else _classes_between
    found = torch.empty(len(logits), *size, dtype=torch.uint8)
    for image, each in zip(found, logits, strict=True):
        image.copy_(classes(each, via, size))
    return found


def _plainly(logits: Tensor, via: Size, size: Size) -> Tensor:
    """The logits of every pixel: (N, classes, h, w) -> (N, height, width) uint8."""
    logits = F.interpolate(logits, via, mode="bilinear", align_corners=True)
    if via != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits.argmax(dim=1).to(torch.uint8)


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _classes(logits: Tensor, via: Size, size: Size) -> Tensor:
    """Of one image: (classes, h, w) logits -> (height, width) uint8."""
    down = _mixture(logits.shape[1], via[0], size[0])
    across = _mixture(logits.shape[2], via[1], size[1])
    possible = None
    if size[0] * size[1] > _SMALL_MAP:
        possible = _possible(logits, (down.reach, across.reach))
        logits = logits[possible]
    # Classes beside each other in a row: a row of the result is mixed from whole rows of these.
    wide = (logits.transpose(0, 1) @ across.shares.T).flatten(1)
    step = max(1, ROOM_BYTES * torch.get_num_threads() // (wide.shape[1] * wide.element_size()))
    names = None if possible is None else possible.to(torch.uint8).expand(step, -1)
    found = torch.empty(size, dtype=torch.uint8)
    for begin in range(0, size[0], step):
        rows = slice(begin, begin + step)
        used = slice(min(down.firsts[rows]), max(down.ends[rows]))
        mixed = down.shares[rows, used] @ wide[used]
        best = _first_largest(mixed.view(len(mixed), len(logits), size[1]))
        if names is None:
            found[rows] = best
        else:
            torch.gather(names[: len(best)], 1, best, out=found[rows])
    return found


def _classes_between(logits: Tensor, via: Size, size: Size) -> Tensor:
    """Of one image whose logits are of the size ``via``: -> (height, width) uint8."""
    best = _largest(logits).to(torch.uint8)
    if via == size:
        return best
    down, across = (_mixture(old, old, new) for old, new in zip(via, size, strict=True))
    reach = down.reach, across.reach
    above = _over_windows(best[None], reach, torch.maximum)[0]
    below = _over_windows(best[None], reach, torch.minimum)[0]
    # Windows end where the image does: those of its last pixels begin before them.
    rows, columns = (
        torch.tensor(firsts).clamp(max=last - 1)
        for firsts, last in zip((down.firsts, across.firsts), above.shape, strict=True)
    )
    one, differ = (
        each.index_select(1, columns).index_select(0, rows) for each in (below, above != below)
    )
    if differ.float().mean() > _MOST_DIFFERENT:
        return _plainly(logits[None], via, size)[0]
    at_y, at_x = differ.nonzero().unbind(1)
    pixels = logits.permute(1, 2, 0).flatten(0, 1)
    for y, x in zip(at_y.split(_PIXELS), at_x.split(_PIXELS), strict=True):
        mixed = logits.new_zeros(len(y), len(logits))
        for i, j in itertools.product(*map(range, reach)):
            row, column = rows[y] + i, columns[x] + j
            share = down.shares[y, row] * across.shares[x, column]
            mixed.addcmul_(pixels.index_select(0, row * via[1] + column), share[:, None])
        one[y, x] = mixed.argmax(1).to(torch.uint8)
    return one


def _largest(logits: Tensor) -> Tensor:
    """``logits.argmax(0)`` of (classes, h, w)."""
    if logits.stride(0) == 1:
        return logits.permute(1, 2, 0).argmax(2)
    return _first_largest(logits.transpose(0, 1).contiguous())


_MOST_DIFFERENT = 0.2
"""Share of pixels between different classes from which on mixing all of them is faster."""

_SMALL_MAP = 1 << 16
"""Pixels up to which it takes longer to leave out classes than to compare them all."""

_PIXELS = 1 << 14
"""Of those between different classes, as many at a time."""


@dataclass(frozen=True, slots=True)
class _Mixture:
    """How a line of numbers is brought to another length.

    Attributes:
        shares: (new length, length) of each old number in each new one; rows add up to 1.
        firsts: Of each new number, the first of the old ones that have a part in it.
        ends: Of each, the one after the last.
        reach: The most from first to last.
    """

    shares: Tensor
    firsts: list[int]
    ends: list[int]
    reach: int


@lru_cache(maxsize=16)
def _mixture(length: int, via: int, size: int) -> _Mixture:
    """What torch makes of one number among zeros: no formula of it is written twice."""
    # Kept from call to call, of which not every one need be under inference mode.
    with torch.inference_mode(mode=False), torch.no_grad():
        line = torch.eye(length)[None]
        line = F.interpolate(line, via, mode="linear", align_corners=True)
        if via != size:
            line = F.interpolate(line, size, mode="linear", align_corners=False)
        shares = line[0].T.contiguous()
    has = (shares != 0).byte()
    firsts, ends = has.argmax(1), length - has.flip(1).argmax(1)
    return _Mixture(shares, firsts.tolist(), ends.tolist(), int((ends - firsts).max()))


def _possible(logits: Tensor, reach: Size) -> Tensor:
    """Classes that may be the best somewhere between the logits' pixels, in order.

    A mixture is nowhere above the largest of what is mixed and nowhere below the smallest:
    beside a class whose smallest exceeds its largest a class has no chance.
    """
    above = _over_windows(logits, reach, torch.maximum)
    below = _over_windows(logits, reach, torch.minimum)
    return (above >= below.amax(0)).flatten(1).any(1).nonzero().flatten()


def _over_windows(x: Tensor, reach: Size, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest or smallest of every window of (classes, h, w)."""
    for dim, length in enumerate(reach, start=1):
        x = reduce(of, x.unfold(dim, length, 1).unbind(-1))
    return x


def _first_largest(logits: Tensor) -> Tensor:
    """``logits.argmax(1)`` of (rows, classes, columns), at a tenth of its time on a CPU.

    As pooling with indices over one long window: of the two only that is vectorised.
    """
    rows, classes, columns = logits.shape
    windows = logits.view(rows, classes, 1, columns).permute(0, 3, 1, 2)
    _, found = F.max_pool2d(windows, (classes, 1), return_indices=True)
    return found.view(rows, columns)
