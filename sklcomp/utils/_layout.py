"""Rows and the images that they are: shapes, flattening, channels, and back.

The recovery, the translation and the distillation without data read their inputs with
it.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from sklcomp.utils._messages import show


def as_shape(given: Any, name: str, example: str = "(32, 32)") -> tuple[int, ...]:
    """The shape of an example as plain integers."""
    shape = tuple(given)
    is_whole = all(isinstance(n, Integral) and int(n) > 0 for n in shape)
    if not (shape and is_whole):
        msg = (
            f"{name}={show(shape)} must consist of positive integers, such as "
            f"{example}."
        )
        raise ValueError(msg)
    return tuple(map(int, shape))


def check_row_length(X: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Raise if flat rows have not as many values as an example of a shape."""
    if X.shape[1] != math.prod(shape):
        product = " x ".join(map(str, shape))
        msg = (
            f"{name}={show(shape)} has {product} = {math.prod(shape)} values, but X "
            f"has {X.shape[1]} features; choose a shape whose product is that."
        )
        raise ValueError(msg)


def shape_of(X: Any) -> tuple[int, ...]:
    """The shape of any container."""
    return tuple(X.shape) if hasattr(X, "shape") else np.asarray(X).shape


def count_axes(X: Any) -> int:
    """Axes of any container; a frame has two."""
    return 2 if hasattr(X, "columns") else len(shape_of(X))


def as_flat_rows(X: Any) -> Any:
    """Examples as rows; what has two axes or fewer stays as it is."""
    shape = shape_of(X)
    return X if len(shape) < 3 else np.asarray(X).reshape(len(X), math.prod(shape[1:]))


def check_examples(given: tuple[int, ...], wanted: tuple[int, ...], name: str) -> None:
    """Raise if examples that came as images have another shape than is wanted."""
    if len(given) > 1 and given != wanted:
        msg = (
            f"{name} has images of shape {show(given)}; expected {show(wanted)}. Give "
            "images of that shape, or flat rows."
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class Channels:
    """Images whose channels are treated one by one.

    Attributes
    ----------
    shape : tuple of int
        Of one example.
    axis : int or None
        Where in it the channels are; None: there is one.
    """

    shape: tuple[int, ...]
    axis: int | None = None

    def __post_init__(self) -> None:
        n_axes = len(self.shape)
        if self.axis is not None and (not -n_axes <= self.axis < n_axes or n_axes < 2):
            msg = (
                f"channel_axis={self.axis} does not exist beside an image axis in "
                f"image_shape_={show(self.shape)}."
            )
            raise ValueError(msg)

    @property
    def shape_of_one(self) -> tuple[int, ...]:
        """Of one channel of one image."""
        if self.axis is None:
            return self.shape
        return tuple(map(int, np.delete(self.shape, self.axis)))

    def split(self, rows: np.ndarray) -> np.ndarray:
        """Every channel of every image, of shape (n_samples * n_channels, ...)."""
        images = rows.reshape(len(rows), *self.shape)
        if self.axis is not None:
            images = np.moveaxis(images, self.axis % len(self.shape) + 1, 1)
        return np.ascontiguousarray(images).reshape(-1, *self.shape_of_one)

    def join(self, channels: np.ndarray) -> np.ndarray:
        """Flat rows again."""
        if self.axis is None:
            return channels.reshape(len(channels), -1)
        axis = self.axis % len(self.shape)
        images = channels.reshape(-1, self.shape[axis], *self.shape_of_one)
        return np.moveaxis(images, 1, axis + 1).reshape(len(images), -1)
