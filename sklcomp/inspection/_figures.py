"""``laid_out``: the figure and the axes that every display draws in."""

from typing import Any


def laid_out(figure: Any, size: tuple[float, float]) -> Any:
    """The figure, a new one if it is None, with a layout engine if it has none.

    Without one, labels and legends would lie over other panels.
    """
    import matplotlib.pyplot as plt

    if figure is None:
        return plt.figure(figsize=size, layout="constrained")
    if figure.get_layout_engine() is None:
        # .figure also leads from a subfigure to the whole.
        figure.figure.set_layout_engine("constrained")
    return figure
