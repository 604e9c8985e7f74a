"""
=================================================
A smooth field from scattered, noisy measurements
=================================================

Three hundred stations measure one quantity, each with an error.
:class:`sklcomp.recovery.DCTRegressor` makes a map of it: each station belongs to a node
of a grid, and the smoothest field that agrees with the measurements, as far as they are
believed, is the map. How far, and what smooth means, is found by cross-validation over
the stations.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import griddata
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor

from sklcomp.recovery import DCTRegressor

# %%
# The field and its stations
# --------------------------
# Coordinates in kilometres; the field is known here only so that maps can be judged.


def field(X):
    """Two hills and a slope, in any unit."""
    east, north = X[:, 0] / 40, X[:, 1] / 30
    hills = np.exp(-8 * ((east - 0.3) ** 2 + (north - 0.6) ** 2))
    hills += 0.7 * np.exp(-20 * ((east - 0.75) ** 2 + (north - 0.3) ** 2))
    return hills + 0.3 * north


rng = np.random.default_rng(0)
stations = rng.uniform(0, [40, 30], size=(300, 2))
measured = field(stations) + rng.normal(scale=0.1, size=300)

# %%
# Order and noise by cross-validation
# -----------------------------------
# The region is larger than the stations' own range, so its extent is given.
folds = KFold(5, shuffle=True, random_state=0)
model = DCTRegressor((60, 80), extent=((0, 40), (0, 30)))
search = GridSearchCV(
    model, {"order": [1, 1.5, 2], "noise": [0, 1e3, 1e4, 1e5, 1e6]}, cv=folds
).fit(stations, measured)
print("chosen:", search.best_params_)
neighbours = GridSearchCV(
    KNeighborsRegressor(weights="distance"),
    {"n_neighbors": [1, 3, 5, 10, 20]},
    cv=folds,
).fit(stations, measured)
print("chosen:", neighbours.best_params_)

# %%
# Four maps
# ---------
# Without noise the map passes through every measurement, error included; so does linear
# interpolation, which in addition says nothing outside the hull of the stations.
east, north = np.meshgrid(np.linspace(0, 40, 121), np.linspace(0, 30, 91))
places = np.column_stack([east.ravel(), north.ravel()])
truth = field(places)
maps = {
    "true field": truth,
    "griddata, linear": griddata(stations, measured, places),
    "nearest neighbours": neighbours.predict(places),
    "DCT norm, noise=0": model.fit(stations, measured).predict(places),
    "DCT norm, tuned": search.predict(places),
}
fig, axes = plt.subplots(2, 3, figsize=(11, 5.8), layout="constrained")
for ax, (name, values) in zip(axes.flat, maps.items(), strict=False):
    inside = ~np.isnan(values)
    score = r2_score(truth[inside], values[inside])
    print(f"{name:20} R2 {score:.3f} at {inside.mean():.0%} of the places")
    ax.pcolormesh(east, north, values.reshape(east.shape), vmin=-0.1, vmax=1.3)
    ax.set_title(name if name == "true field" else f"{name}\nR2 = {score:.3f}")
axes.flat[-1].scatter(*stations.T, c=measured, s=8, vmin=-0.1, vmax=1.3)
axes.flat[-1].set_title("measurements")
for ax in axes.flat:
    ax.set(aspect="equal", xticks=[], yticks=[])
plt.show()
