"""Small dense networks with which CycleGANTranslator translates plain vectors."""

from torch import Tensor, nn


class VectorGenerator(nn.Module):
    """Adds a correction, by one hidden layer, to its input.

    In double precision, which is cheap here, and in which the sums of a matrix product
    do not depend, to seven digits, on how many rows it has.
    """

    def __init__(self, n_features: int, n_hidden: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_features)
        ).double()

    def forward(self, x: Tensor) -> Tensor:
        """Translated rows, of the shape of the input."""
        precise = x.double()
        return (precise + self.layers(precise)).to(x.dtype)


class VectorDiscriminator(nn.Module):
    """One hidden layer, and a score."""

    def __init__(self, n_features: int, n_hidden: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, n_hidden), nn.LeakyReLU(0.2), nn.Linear(n_hidden, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, 1) of rows."""
        return self.layers(x)
