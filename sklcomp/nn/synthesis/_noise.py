"""``structured_noise``: blobs, contour lines and strokes of a pen, as examples.

Users and the sources of ``DataFreeDistiller`` call it.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sklcomp.nn.synthesis._generators import Values, _spread
from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked

# Cells along the side of an image, of blobs and of contour lines.
BLOB_GRIDS, LINE_GRIDS = (2, 3, 4, 6, 8, 12), (3, 4, 5, 6, 8)
# Images that are drawn at a time, and points along a stroke.
CHUNK, N_POINTS = 1000, 48


@refuse_masked
def structured_noise(
    n: int,
    image_shape: Sequence[int],
    input_range: tuple[Values, Values] | None,
    generator: torch.Generator,
    kinds: Sequence[str] = ("blobs",),
) -> Tensor:
    """Random shapes, which know nothing of any data.

    Labelled by a teacher they are a strong rival of images that a network has made.
    The kinds are

    - "blobs": a grid of normal noise, of a random coarseness, brought to its full size
      by bicubic interpolation and then to two levels, with a random threshold and a
      random softness of the edges;
    - "lines": a contour line of such smooth noise, of even width, within an ellipse;
    - "strokes": one or two smooth curves through three to five random points, open or
      closed, as drawn with a pen.

    Parameters
    ----------
    n : int
        Number of images.
    image_shape : tuple of int
        Channels, height and width. With one entry, a number of features, between which
        nothing is smooth, the noise is normal, and clipped to the range.
    input_range : tuple of two values or None
        Least and greatest value, each a number or one for each channel. None stands for
        (-2, 2) in images, and for no limits in vectors.
    generator : torch.Generator
        Source of the noise. Its device is that of the result.
    kinds : sequence of {"blobs", "lines", "strokes"}, default=("blobs",)
        Each makes its share of the images, in this order. With one channel, lines and
        strokes are of the greatest value on a ground of the least; with more, both
        have random colours.

    Returns
    -------
    images : Tensor of shape (n, ...)
        Within the range.

    Raises
    ------
    ValueError
        If a kind is unknown.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import structured_noise
    >>> generator = torch.Generator().manual_seed(0)
    >>> images = structured_noise(3, (1, 28, 28), (0, 1), generator)
    >>> images.shape, bool(((images >= 0) & (images <= 1)).all())
    (torch.Size([3, 1, 28, 28]), True)
    """
    n_channels, *size = image_shape
    device = generator.device
    if not size and input_range is None:
        return torch.randn(n, n_channels, generator=generator, device=device)
    low, high = (
        _spread(values, (n_channels, *[1] * len(size)), "input_range").to(device)
        for values in input_range or (-2.0, 2.0)
    )
    if not size:
        noise = torch.randn(n, n_channels, generator=generator, device=device)
        # Four standard deviations fill the range.
        level = (noise / 4 + 0.5).clamp_(0, 1)
    else:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not len(kinds):
            msg = f"kinds={show(tuple(kinds))}: choose some of {', '.join(KINDS)}."
            raise ValueError(msg)
        ends = [round(n * k / len(kinds)) for k in range(len(kinds) + 1)]
        level = torch.cat(
            [
                KINDS[kind](end - start, n_channels, size, generator)
                for kind, start, end in zip(kinds, ends, ends[1:], strict=False)
            ]
        )
    return torch.lerp(low, high, level)


def _uniform(rng: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    draws = torch.rand(*shape, generator=rng, device=rng.device)
    return low + (high - low) * draws


def _integers(rng: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape, generator=rng, device=rng.device)


def _draw_smooth(
    n: int,
    n_channels: int,
    size: Sequence[int],
    rng: torch.Generator,
    grids: Sequence[int],
) -> Tensor:
    """Smooth normal noise (n, n_channels, *size) of random coarseness."""
    grids = [k for k in grids if 2 * k <= max(size)] or [1]
    choice = _integers(rng, 0, len(grids), n)
    smooth = torch.empty(n, n_channels, *size, device=rng.device)
    for index, k in enumerate(grids):
        rows = (choice == index).nonzero().flatten()
        if len(rows):
            cells = [min(k, side) for side in size]
            shape = (len(rows), n_channels, *cells)
            coarse = torch.randn(shape, generator=rng, device=rng.device)
            smooth[rows] = F.interpolate(coarse, size, mode="bicubic")
    return smooth


def _draw_blobs(
    n: int, n_channels: int, size: Sequence[int], rng: torch.Generator
) -> Tensor:
    """Images (n, n_channels, *size) with values in [0, 1]."""
    smooth = _draw_smooth(n, n_channels, size, rng, BLOB_GRIDS)
    threshold, softness = torch.rand(2, n, 1, 1, 1, generator=rng, device=rng.device)
    threshold = 2 * threshold - 1
    # Edges from sharp to as wide as the blobs.
    softness = 0.03 * 20**softness
    return torch.sigmoid_((smooth - threshold) / softness)


def _draw_lines(
    n: int, n_channels: int, size: Sequence[int], rng: torch.Generator
) -> Tensor:
    """Likewise."""
    smooth = _draw_smooth(n, 1, size, rng, LINE_GRIDS)
    padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    right = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    slope = (down.square() + right.square()).sqrt().clamp_min(0.02)
    level = _uniform(rng, -0.8, 0.8, n, 1, 1, 1)
    # In pixels, to first order; the least slope keeps flat places from filling up.
    distance = (smooth - level).abs() / slope
    unit = _unit(size)
    width = unit * _uniform(rng, 0.7, 2.2, n, 1, 1, 1)
    softness = _uniform(rng, 1.0, 4.0, n, 1, 1, 1)
    ink = torch.sigmoid((width - distance) * softness) * _draw_ellipse(n, size, rng)
    return _paint(ink, n_channels, rng)


def _draw_ellipse(n: int, size: Sequence[int], rng: torch.Generator) -> Tensor:
    """One within an ellipse (n, 1, *size) somewhere in the middle, zero outside."""
    axes = [torch.linspace(-1, 1, side, device=rng.device) for side in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    centre = _uniform(rng, -0.15, 0.15, n, 2, 1, 1)
    radius = _uniform(rng, 0.35, 0.9, n, 2, 1, 1)
    norm = ((places - centre) / radius).square().sum(1, keepdim=True).sqrt()
    return torch.sigmoid(8 * (1 - norm))


def _draw_strokes(
    n: int, n_channels: int, size: Sequence[int], rng: torch.Generator
) -> Tensor:
    """Likewise."""
    chunks = []
    for start in range(0, n, CHUNK):
        m = min(CHUNK, n - start)
        distance = _distance_to_curve(m, size, rng)
        other = _distance_to_curve(m, size, rng)
        has_two = _uniform(rng, 0, 1, m, 1, 1) < 0.45
        distance = torch.where(has_two, torch.minimum(distance, other), distance)
        width = _unit(size) * _uniform(rng, 0.6, 2.1, m, 1, 1)
        softness = _uniform(rng, 1.2, 4.0, m, 1, 1)
        ink = torch.sigmoid((width - distance) * softness)
        # The middle of the stroke has the full value.
        chunks.append((ink / torch.sigmoid(width * softness)).unsqueeze(1))
    ink = torch.cat(chunks) if chunks else torch.empty(0, 1, *size, device=rng.device)
    return _paint(ink.clamp_max_(1), n_channels, rng)


def _distance_to_curve(n: int, size: Sequence[int], rng: torch.Generator) -> Tensor:
    """Distance of every pixel (n, *size) from a random curve, in pixels."""
    height, width = size
    # A pen keeps off the border, more so to the left and right.
    reach = torch.tensor([0.62, 0.5], device=rng.device)
    half = torch.tensor([height - 1, width - 1], device=rng.device) / 2
    points = half + half * reach * _draw_curve(n, rng)
    rows = torch.arange(height, device=rng.device)
    columns = torch.arange(width, device=rng.device)
    down = (rows[None, :, None] - points[:, None, :, 0]).square()
    right = (columns[None, :, None] - points[:, None, :, 1]).square()
    nearest = torch.full((n, height, width), math.inf, device=rng.device)
    for k in range(N_POINTS):
        square = down[:, :, None, k] + right[:, None, :, k]
        torch.minimum(nearest, square, out=nearest)
    return nearest.sqrt_()


def _draw_curve(n: int, rng: torch.Generator) -> Tensor:
    """Points (n, N_POINTS, 2) of Catmull-Rom splines, their knots in [-1, 1]."""
    knots = _uniform(rng, -1, 1, n, 5, 2)
    n_knots = _integers(rng, 3, 6, n, 1)
    is_closed = _uniform(rng, 0, 1, n, 1) < 0.3
    length = torch.where(is_closed, n_knots, n_knots - 1)
    along = torch.linspace(0, 1, N_POINTS, device=rng.device) * length
    index = along.floor().long()
    t = (along - index).unsqueeze(-1)

    def knot(shift: int) -> Tensor:
        place = index + shift
        ends = torch.minimum(place.clamp_min(0), n_knots - 1)
        place = torch.where(is_closed, place % n_knots, ends)
        return knots.gather(1, place.unsqueeze(-1).expand(-1, -1, 2))

    a, b, c, d = map(knot, (-1, 0, 1, 2))
    slope, bend, twist = c - a, 2 * a - 5 * b + 4 * c - d, 3 * (b - c) + d - a
    return b + (slope * t + bend * t**2 + twist * t**3) / 2


def _unit(size: Sequence[int]) -> float:
    """Width of a pen of one pixel in an image of 32 pixels, in pixels."""
    return math.sqrt(max(size) / 32)


def _paint(ink: Tensor, n_channels: int, rng: torch.Generator) -> Tensor:
    """Ink (n, 1, h, w) as a picture: one on zero, or in colours."""
    if n_channels == 1:
        return ink
    ground, colour = _uniform(rng, 0, 1, 2, len(ink), n_channels, 1, 1)
    return torch.lerp(ground, colour, ink)


KINDS: dict[str, Callable[..., Tensor]] = {
    "blobs": _draw_blobs, "lines": _draw_lines, "strokes": _draw_strokes,
}  # fmt: skip
