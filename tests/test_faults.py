"""Faults and bad input that every estimator must survive, case by case."""

import gc
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklcomp.recovery import DCTImputer, recover_image

ROOT = Path(__file__).resolve().parent.parent


def incomplete(rng, shape=(5, 48), missing=0.4):
    X = rng.random(shape)
    X[rng.random(shape) < missing] = np.nan
    X[:, 0] = 0.5
    return X


def fill(X, **settings):
    return DCTImputer((6, 8), **settings).fit_transform(X)


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinity_is_refused(rng, bad):
    X = incomplete(rng)
    X[2, 3] = bad
    with pytest.raises(ValueError, match="infinity"):
        fill(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.empty((0, 48)), "0 sample"),
        (np.empty((3, 0)), r"0 feature\(s\)"),
        (np.ones(48), "Reshape your data"),
        (np.ones((2, 48)) * 1j, "Complex data not supported"),
        (np.empty((0, 6, 8)), "0 sample"),
    ],
)
def test_malformed_input_is_refused(X, message):
    with pytest.raises(ValueError, match=message):
        DCTImputer().fit(X)


def test_predicting_comes_after_fitting_and_expects_as_many_features(rng):
    X = incomplete(rng)
    with pytest.raises(NotFittedError):
        DCTImputer().transform(X)
    imputer = DCTImputer((6, 8)).fit(X)
    with pytest.raises(ValueError, match="expecting 48 features"):
        imputer.transform(X[:, :40])
    with pytest.raises(ValueError, match=r"expected \(6, 8\)"):
        imputer.transform(X.reshape(-1, 8, 6))


def test_one_sample_works(rng):
    X = incomplete(rng)
    np.testing.assert_allclose(fill(X[:1]), fill(X)[:1], atol=1e-9)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e-310, 5e-324])
def test_huge_and_tiny_values_stay_finite(rng, scale):
    X = incomplete(rng) * scale
    found = fill(X)
    assert np.isfinite(found).all()
    if scale in (1e300, 1e-300):
        np.testing.assert_allclose(found / scale, fill(X / scale), rtol=1e-9)


def test_overflow_is_refused():
    signal = np.array([-1.7e308, 1.7e308, np.nan, np.nan, 0])
    with pytest.raises(ValueError, match="exceed 1.8e\\+308, the limit of float64"):
        recover_image(signal, order=4)


@pytest.mark.parametrize(
    "kind", ["float16", "int8", "uint8", "bool", "O", ">f8", ">f4"]
)
def test_types_give_what_float64_gives(kind, rng):
    whole = rng.integers(0, 2 if kind == "bool" else 100, (6, 8))
    mask = rng.random((6, 8)) > 0.5
    expected = recover_image(whole.astype(float), mask)
    found = recover_image(whole.astype(kind), mask)
    assert found.dtype == ("f4" if kind == ">f4" else "f8")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    if kind not in ("int8", "uint8", "bool"):
        X = np.where(mask, whole, np.nan).reshape(1, -1)
        np.testing.assert_allclose(
            fill(X.astype(kind)).astype(float), expected.reshape(1, -1), atol=1e-4
        )


def test_layouts_containers_and_read_only_memory(rng, tmp_path):
    X = incomplete(rng)
    expected = fill(X)
    frozen = X.copy()
    frozen.setflags(write=False)
    joblib.dump(X, tmp_path / "X.joblib")
    mapped = joblib.load(tmp_path / "X.joblib", mmap_mode="r")
    wide = np.repeat(X, 2, axis=1)
    variants = {
        "fortran": np.asfortranarray(X),
        "strided": wide[:, ::2],
        "negative": X[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": frozen,
        "memmap": mapped,
        "list": X.tolist(),
        "frame": pd.DataFrame(X),
        "arrow": pd.DataFrame(X).convert_dtypes(dtype_backend="pyarrow"),
    }
    for name, variant in variants.items():
        before = joblib.hash(variant)
        found = DCTImputer((6, 8)).fit_transform(variant)
        np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=name)
        assert joblib.hash(variant) == before, name


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 9), (9, 1), (7, 5), (13, 17), (31, 2), (3, 4, 5), (2, 3, 2, 3)],
)
def test_any_shape(shape, rng):
    image = rng.random(shape)
    mask = rng.random(shape) > 0.6
    mask.flat[0] = True
    for order in (1, 1.5, 2):
        found = recover_image(image, mask, order=order)
        assert found.shape == shape
        assert np.array_equal(found[mask], image[mask])
        assert np.isfinite(found).all()


def test_one_channel_equals_none(rng):
    image = rng.random((6, 8))
    image[2:4] = np.nan
    np.testing.assert_array_equal(
        recover_image(image[..., None], channel_axis=-1)[..., 0], recover_image(image)
    )


def test_uint8_does_not_wrap_around():
    edge = np.repeat([[0], [255]], 8, axis=0).astype(np.uint8)
    mask = np.ones((16, 1), dtype=bool)
    mask[7:9] = False
    found = recover_image(edge, mask, order=2)
    # Order 2 overshoots on both sides of the step.
    assert found.dtype == np.float64
    assert found.min() >= -100
    assert found.max() <= 355
    assert np.array_equal(found[mask], edge[mask])


def test_same_seed_same_result_and_the_global_generator_is_untouched(rng):
    X = incomplete(rng)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    scores = [DCTImputer((6, 8), random_state=7).fit(X).score(X) for _ in range(2)]
    assert scores[0] == scores[1]
    DCTImputer((6, 8)).fit(X).score(X)
    generator = np.random.RandomState(0)
    assert np.isfinite(DCTImputer((6, 8), random_state=generator).fit(X).score(X))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_clones_fitted_in_threads_and_concurrent_transforms(rng):
    X = incomplete(rng, (20, 48))
    imputer = DCTImputer((6, 8))
    expected = imputer.fit_transform(X)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: clone(imputer).fit_transform(X), range(12)):
            np.testing.assert_array_equal(found, expected)
        for found in pool.map(lambda _: imputer.transform(X), range(12)):
            np.testing.assert_array_equal(found, expected)


def test_repeated_fits_leave_nothing_behind(rng):
    X = incomplete(rng)
    imputer = DCTImputer((6, 8))

    def count(n_fits):
        for _ in range(n_fits):
            imputer.fit(X)
        gc.collect()
        return len(gc.get_objects())

    count(5)
    assert count(200) - count(1) < 50


def test_joblib_dump_and_load(rng, tmp_path):
    X = incomplete(rng)
    imputer = DCTImputer((6, 8))
    joblib.dump(imputer, tmp_path / "unfitted")
    joblib.dump(imputer.fit(X), tmp_path / "fitted")
    expected = imputer.transform(X)
    np.testing.assert_array_equal(
        joblib.load(tmp_path / "fitted").transform(X), expected
    )
    np.testing.assert_array_equal(
        joblib.load(tmp_path / "unfitted").fit_transform(X), expected
    )


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_backends_agree(rng, backend):
    X = incomplete(rng)
    expected = fill(X)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        np.testing.assert_array_equal(fill(X), expected)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_made_by_fork_can_fit(rng):
    X = incomplete(rng)
    expected = fill(X)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(fill, (X,)).get(timeout=60)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "environment", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_BOUNDSCHECK": "1"}]
)
def test_python_and_bounds_checked_kernels_agree(rng, environment, tmp_path):
    image = rng.random((9, 7))
    image[rng.random((9, 7)) < 0.6] = np.nan
    np.save(tmp_path / "image.npy", image)
    code = (
        "import numpy as np; from sklcomp.recovery import recover_image\n"
        "image = np.load('image.npy')\n"
        "np.save('out.npy', [recover_image(image, order=2, solver=s, tol=1e-9)"
        " for s in ('direct', 'stencil', 'pcg')])"
    )
    env = os.environ | environment | {"SKLCOMP_NUMBA_CACHE": "0"}
    env["PYTHONPATH"] = str(ROOT)
    subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd=tmp_path)
    expected = [
        recover_image(image, order=2, solver=s, tol=1e-9)
        for s in ("direct", "stencil", "pcg")
    ]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_image_keeps_to_bounded_memory():
    """At most twelve arrays of its size at 4096 x 4096; the bound grows with it."""
    code = (
        "import numpy as np; from pathlib import Path\n"
        "from sklcomp.recovery import recover_image\n"
        "def status(key):\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return [int(x.split()[1]) for x in lines if x.startswith(key)][0]\n"
        "n = 4096; rng = np.random.default_rng(0)\n"
        "recover_image(np.where(rng.random((64, 64)) < .9, np.nan, 1.0))\n"
        "image = rng.random((n, n)); mask = rng.random((n, n)) > .95\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = status('VmRSS')\n"
        "recover_image(image, mask, max_iter=30)\n"
        "print((status('VmHWM') - before) * 1024 / (8 * n * n))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=env, capture_output=True
    )
    # Less than the result and the images to solve for would be a failed measurement.
    assert 3 <= float(done.stdout) <= 12
