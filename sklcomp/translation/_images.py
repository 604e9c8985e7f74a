"""ImageLayout: turns what users call images into tensors, and back.

``CycleGANTranslator`` makes one in each fit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sklcomp.utils._layout import check_examples, check_row_length

# Generators halve images twice, and mirror a pixel of what is left.
MULTIPLE, LEAST = 4, 8
# More channels than this are not taken for those of an image.
MAX_CHANNELS = 4
# By so much rounding may lead out of [-1, 1].
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ImageLayout:
    """How the examples of a user lie in memory.

    Attributes
    ----------
    shape : tuple of int
        Of one example: (n_features,) of a plain vector, (height, width), or with an
        axis of channels, which is the last unless only the first is short.
    """

    shape: tuple[int, ...]

    @property
    def is_image(self) -> bool:
        """Whether examples have pixels."""
        return len(self.shape) > 1

    @property
    def is_channels_first(self) -> bool:
        """Whether the axis of channels is before those of the pixels."""
        return len(self.shape) == 3 and self.shape[0] <= MAX_CHANNELS < self.shape[2]

    @property
    def n_channels(self) -> int:
        """Channels of an image."""
        if len(self.shape) < 3:
            return 1
        return self.shape[0] if self.is_channels_first else self.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        shape = self.shape[1:] if self.is_channels_first else self.shape[:2]
        return shape[0], shape[1]

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width that generators can take."""
        height, width = (max(LEAST, -(-n // MULTIPLE) * MULTIPLE) for n in self.size)
        return height, width

    def check(self, X: np.ndarray, given: tuple, name: str = "X") -> None:
        """Raise ValueError if rows that came in this shape do not have the layout."""
        check_examples(given, self.shape, name)
        if not self.is_image:
            if np.abs(X).max() > np.finfo(np.float32).max:
                msg = f"{name} has values that exceed 3.4e+38, the limit of float32."
                raise ValueError(msg)
            return
        check_row_length(X, self.shape, "image_shape")
        if X.dtype != np.uint8 and np.abs(X).max() > 1 + TOLERANCE:
            msg = (
                f"{name} holds {X.flat[np.abs(X).argmax()]:g}; images of dtype "
                f"{X.dtype} must lie in [-1, 1]. Pass uint8 for 0 to 255, or "
                f"{name} / 127.5 - 1."
            )
            raise ValueError(msg)

    def to_tensor(self, X: np.ndarray) -> Tensor:
        """Rows as float32: vectors, or images (n, channels, height, width), padded."""
        values = np.asarray(X, dtype=np.float32)
        if not self.is_image:
            # A copy: the array may be the user's, and a network may work in place.
            return torch.from_numpy(values.copy())
        if X.dtype == np.uint8:
            values = values / 127.5 - 1
        images = torch.from_numpy(values.reshape(len(X), *self.shape).copy())
        if len(self.shape) == 2:
            images = images[:, None]
        elif not self.is_channels_first:
            images = images.movedim(-1, 1)
        return self.pad(images)

    def pad(self, images: Tensor) -> Tensor:
        """Images, padded or not, with new edges; vectors as they are."""
        if not self.is_image:
            return images
        (height, width), (rows, columns) = self.size, self.padded_size
        images = images[:, :, :height, :width]
        more = 0, columns - width, 0, rows - height
        # Repeated edges, as mirrored ones need that many pixels to be there.
        return F.pad(images, more, mode="replicate").contiguous()

    def to_rows(self, output: Tensor, dtype: Any) -> np.ndarray:
        """Inverse of to_tensor, for rows of the given dtype."""
        if self.is_image:
            height, width = self.size
            output = output[:, :, :height, :width]
            if len(self.shape) == 3 and not self.is_channels_first:
                output = output.movedim(1, -1)
        values = output.flatten(1).numpy(force=True)
        if dtype == np.uint8 and self.is_image:
            # The generator of a user need not end in tanh, and a cast would wrap
            # around.
            values = np.clip(np.rint((values + 1) * 127.5), 0, 255)
        return values.astype(dtype)
