"""
===================================================
Translation without pairs, and then in a small size
===================================================

Two heaps of pictures show the same kind of thing in two ways, and no picture of one
heap belongs to a picture of the other.
:class:`~sklcomp.translation.CycleGANTranslator` learns to turn either kind into the
other, and :class:`~sklcomp.compression.CoEvolutionaryPruner` makes both of its networks
small, together.

The heaps here are handwritten digits, light on dark and dark blue on sand, from
disjoint halves of scikit-learn's digits. The true translation is known, and nothing is
told of it; so the result can be measured.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator

from sklcomp.compression import CoEvolutionaryPruner
from sklcomp.datasets import make_unpaired_digits
from sklcomp.inspection import CompressionDisplay, EvolutionDisplay, TranslationDisplay
from sklcomp.translation import CycleGANTranslator

digits = make_unpaired_digits(image_size=16, random_state=0)
n_train = 700
a, b = digits.data_a[:n_train], digits.data_b[:n_train]
a_test, b_test = digits.data_a[n_train:], digits.data_b[n_train:]

# %%
# Two domains, one transformer
# ----------------------------
# ``fit`` takes the images of both domains, as here, or all of them with the domain of
# each as ``y``, which cross-validation can split. ``transform`` goes from the first to
# the second, ``inverse_transform`` back.
#
# The identity loss wants what is already of the wanted domain to stay as it is. It
# keeps the tint of photographs. Here all colours must change, and it is in the way.
translator = CycleGANTranslator(
    digits.image_shape, n_filters=8, n_blocks=2, identity_weight=0, batch_size=8,
    lr=1e-3, max_epochs=8, random_state=0,
).fit(a, b)  # fmt: skip
TranslationDisplay.from_estimator(translator, a_test, b_test)
plt.show()

# %%
# Both generators at a quarter of their parameters
# ------------------------------------------------
# Two populations of small generators evolve side by side: one is judged by the
# discriminator, which must answer as it answers to the full generator's images, and by
# the way back through the best of the other population. The best pair is trained for
# two more epochs, with the full generators' images in view.
pruner = CoEvolutionaryPruner(
    FrozenEstimator(translator), max_params=0.25, finetune_epochs=2, random_state=0
).fit(a, b)
TranslationDisplay.from_estimator(
    pruner, a_test, b_test, others={"before": translator}, show_losses=False
)
plt.show()

# %%
print(pruner.report_)


def errors(model):
    """Mean absolute error against the true translation, there and back."""
    there = model.transform(a_test) - digits.translate(a_test)
    back = model.inverse_transform(b_test) - digits.translate_back(b_test)
    return np.abs(there).mean(), np.abs(back).mean()


untouched = np.abs(a_test - digits.translate(a_test)).mean()
print(f"error of doing nothing: {untouched:.3f}")
print("error of the translator: {:.3f} there, {:.3f} back".format(*errors(translator)))
print("error of the small one:  {:.3f} there, {:.3f} back".format(*errors(pruner)))

# %%
# What was saved
CompressionDisplay.from_estimator(pruner)
plt.show()

# %%
# How the first of the two populations fared
EvolutionDisplay.from_estimator(pruner)
plt.show()

# %%
# A recipe for photographs
# ------------------------
# Photographs need the full-size network and hours of a GPU; the calls are the same.
# Images are uint8 of shape (n, height, width, 3), as :func:`skimage.io.imread` reads
# them, all of one size:
#
# .. code-block:: python
#
#    summer = np.stack([imread(path) for path in sorted(glob("trainA/*.jpg"))])
#    winter = np.stack([imread(path) for path in sorted(glob("trainB/*.jpg"))])
#    translator = CycleGANTranslator(
#        device="cuda", checkpoint="summer2winter", warm_start=True, verbose=1,
#        random_state=0,
#    ).fit(summer, winter)
#    pruner = CoEvolutionaryPruner(
#        FrozenEstimator(translator), max_params=0.28, finetune_epochs=20,
#        random_state=0,
#    ).fit(summer, winter)
#    pruner.transform(summer[:8])       # uint8 again
#
# The defaults are the published ones: 64 filters, 9 blocks, batches of one image, 200
# epochs. An interrupted fit goes on from its checkpoint.
