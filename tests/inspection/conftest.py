import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def _own_figures():
    """Figures of other tests and of doctests are not counted."""
    plt.close("all")
    yield
    plt.close("all")
