"""Examples of two domains without pairs: the data set, its batches, the image pool."""

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import Dataset


class UnpairedImages(Dataset):
    """Examples of two domains, of which nothing belongs together."""

    def __init__(self, a: Tensor, b: Tensor):
        self.a, self.b = a, b

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))


class UnpairedBatches:
    """Batches of both domains, each in an order of its own.

    The larger domain is seen once; the smaller as often as it takes.

    Parameters
    ----------
    dataset : UnpairedImages
        Both domains.
    batch_size : int
        Examples of each domain in a batch; the last may have fewer.
    drop_last : bool, default=False
        Whether a last batch with fewer is left out, unless it is the only one.
    """

    def __init__(
        self, dataset: UnpairedImages, batch_size: int, drop_last: bool = False
    ):
        self.dataset, self.batch_size = dataset, batch_size
        self.drop_last = drop_last

    def __len__(self) -> int:
        n_full, n_rest = divmod(len(self.dataset), self.batch_size)
        return n_full + (n_rest > 0 and not (self.drop_last and n_full))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        a, b = self.dataset.a, self.dataset.b
        orders = (self._order(len(images)).split(self.batch_size) for images in (a, b))
        for rows_a, rows_b in islice(zip(*orders, strict=True), len(self)):
            # The places too: who distils looks up what full generators made of these.
            yield a[rows_a], b[rows_b], rows_a, rows_b

    def _order(self, n_rows: int) -> Tensor:
        # Whole orders, so that no example of the smaller domain comes up more than once
        # more than another.
        n = len(self.dataset)
        orders = [torch.randperm(n_rows) for _ in range(math.ceil(n / n_rows))]
        return torch.cat(orders)[:n]


class ImagePool:
    """Earlier images of a generator, which a discriminator is shown now and then.

    Half of what is asked is new; the other half is drawn from the pool, and what is new
    takes its place (Shrivastava et al., arXiv 1612.07828).
    """

    def __init__(self, size: int):
        self.size = size
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        """As many images as are given."""
        if not self.size:
            return images
        return torch.cat([self._exchange(image) for image in images.split(1)])

    def _exchange(self, image: Tensor) -> Tensor:
        # Copies, as a part of a batch would keep all of it in memory.
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if torch.rand(()) < 0.5:
            return image
        k = int(torch.randint(self.size, ()))
        old, self.images[k] = self.images[k], image.clone()
        return old
