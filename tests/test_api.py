import ast
import importlib
import importlib.metadata
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sklcomp

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sklcomp.__file__).parent

# Every public name; what is not here is private.
PUBLIC_NAMES = {
    "sklcomp": {
        "__version__",
        "compression",
        "datasets",
        "evolution",
        "inspection",
        "metrics",
        "model_selection",
        "multilabel",
        "nn",
        "recovery",
        "show_versions",
        "translation",
        "warmup",
    },
    "sklcomp.compression": {
        "CoEvolutionaryPruner",
        "CompressionReport",
        "DataFreeDistiller",
        "DataFreeRecipe",
        "EvolutionaryPruner",
        "FeatureEmbeddingDistiller",
        "PairRecipe",
        "SearchRecipe",
    },
    "sklcomp.datasets": {
        "fetch_multilabel",
        "load_digit_attributes",
        "load_mulan",
        "make_masked_images",
        "make_multilabel_stream",
        "make_unpaired_digits",
    },
    "sklcomp.evolution": {
        "CoevolutionResult",
        "EvolutionResult",
        "coevolve",
        "evolve",
    },
    "sklcomp.inspection": {
        "CompressionDisplay",
        "DistillationDisplay",
        "EvolutionDisplay",
        "LabelStreamDisplay",
        "RecoveryDisplay",
        "TranslationDisplay",
    },
    "sklcomp.metrics": {
        "frechet_distance",
        "normalized_coverage",
        "normalized_coverage_scorer",
        "one_error",
        "one_error_scorer",
        "precision_at_k",
        "precision_at_k_scorer",
        "psnr",
    },
    "sklcomp.model_selection": {"IterativeStratifiedKFold"},
    "sklcomp.translation": {"CycleGANTranslator"},
    "sklcomp.multilabel": {
        "PrivilegedLogisticClassifier",
        "PrivilegedMultiLabelClassifier",
        "StreamingLabelClassifier",
    },
    "sklcomp.nn": {
        "BatchNormStatistics",
        "ChannelGraph",
        "CifarResNet",
        "CycleGANGenerator",
        "DAFLGenerator",
        "DenseGenerator",
        "HintonNet",
        "LeNet",
        "LeNet5",
        "LocalityPreservingLoss",
        "PatchDiscriminator",
        "SmallVGG",
        "activation_loss",
        "adversarial_loss",
        "collect_covariances",
        "count_macs",
        "count_parameters",
        "elimination_order",
        "entropy_loss",
        "feature_loss",
        "fold_batchnorm",
        "kd_loss",
        "keep_fraction",
        "mask_channels",
        "measure_latency",
        "onehot_loss",
        "prune_channels",
        "structured_noise",
        "trace_channels",
    },
    "sklcomp.recovery": {"DCTImputer", "DCTRegressor", "recover_image"},
}
SUBMODULES = {f"sklcomp.{module.name}" for module in pkgutil.iter_modules([PACKAGE])}

# Hides optional packages and notes who asks for them. A hidden module never enters
# sys.modules, so that every request is seen, not only the first.
HIDE_OPTIONAL = """
import sys

class Hider:
    names = {"matplotlib", "pandas", "skorch", "torch"}
    requests = set()

    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package not in self.names:
            return
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        self.requests.add((frame.f_globals["__name__"], package))
        raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hider())
try:
    import torch
except ModuleNotFoundError:
    assert Hider.requests == {("__main__", "torch")}
    Hider.requests.clear()
"""
FILL_A_PIXEL = """
import numpy as np
from sklcomp.recovery import recover_image

for order, solver in ((1.5, "direct"), (1.5, "pcg"), (1, "stencil"), (2, "stencil")):
    filled = recover_image([[2, 2], [np.nan, 2.0]], order=order, solver=solver)
    np.testing.assert_allclose(filled, 2)
"""


def run_python(code, **environment):
    """Run in a fresh interpreter; None unsets a variable."""
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)} | environment
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={name: value for name, value in env.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module_name", sorted(SUBMODULES | {"sklcomp"}))
def test_public_names(module_name):
    module = importlib.import_module(module_name)
    names = getattr(module, "__all__", [])
    assert set(names) == PUBLIC_NAMES.get(module_name, set())
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(module, name) is not None


def test_every_module_of_the_table_exists():
    assert PUBLIC_NAMES.keys() <= SUBMODULES | {"sklcomp"}


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'recovry'"):
        sklcomp.recovry  # noqa: B018
    assert not hasattr(sklcomp, "_missing")


def test_dir_lists_the_public_names():
    assert set(dir(sklcomp)) == set(sklcomp.__all__)


def test_bare_import_loads_no_dependency():
    heavy = ["numpy", "scipy", "sklearn", "numba", "joblib", "torch", "matplotlib"]
    run_python(f"import sys, sklcomp; assert not set({heavy}) & sys.modules.keys()")


def test_subpackages_load_when_first_used():
    run_python(
        "import sys, sklcomp; assert 'sklcomp.metrics' not in sys.modules;"
        "sklcomp.metrics.psnr; assert 'sklcomp.metrics' in sys.modules"
    )


@pytest.mark.parametrize(
    "module_name",
    [
        "datasets",
        "evolution",
        "metrics",
        "model_selection",
        "multilabel",
        "recovery",
    ],
)
def test_numpy_side_never_asks_for_torch_or_plotting(module_name):
    # scikit-learn itself looks for pandas when it is imported.
    run_python(
        HIDE_OPTIONAL
        + f"""
import sklcomp.{module_name}

for importer, package in Hider.requests:
    assert importer.startswith("sklearn.") and package == "pandas", Hider.requests
"""
    )


@pytest.mark.parametrize("module_name", ["compression", "nn"])
def test_torch_side_says_what_to_install(module_name):
    run_python(
        HIDE_OPTIONAL
        + f"""
try:
    import sklcomp.{module_name}
except ImportError as error:
    assert 'pip install "sklcomp[torch]"' in str(error), error
else:
    raise AssertionError("sklcomp.{module_name} came without torch")
"""
    )


def test_kernels_work_where_no_cache_can_be_written():
    # Without a locator numba raises at decoration, as it does in a container without
    # a writable home.
    run_python(
        """
import numba
from numba.core.caching import CacheImpl

CacheImpl._locator_classes = []
if not numba.config.DISABLE_JIT:
    try:
        numba.njit(cache=True)(lambda x: x)
    except RuntimeError as error:
        assert "no locator available" in str(error)
    else:
        raise AssertionError("numba found a place for its cache")
"""
        + FILL_A_PIXEL,
        NUMBA_CACHE_DIR=None,
        NUMBA_CACHE_LOCATOR_CLASSES=None,
        SKLCOMP_NUMBA_CACHE=None,
    )


@pytest.mark.parametrize("name", ["SKLCOMP_NUMBA_CACHE", "NUMBA_BOUNDSCHECK"])
def test_cache_can_be_turned_off_and_has_no_checked_kernels(tmp_path, name):
    setting = {"SKLCOMP_NUMBA_CACHE": "1", "NUMBA_BOUNDSCHECK": "0"}
    setting[name] = str(1 - int(setting[name]))
    run_python(FILL_A_PIXEL, NUMBA_CACHE_DIR=str(tmp_path), **setting)
    assert list(tmp_path.iterdir()) == []


def test_warmup_leaves_nothing_to_compile():
    run_python(
        """
import importlib, pkgutil
import numba, numpy as np
from scipy import sparse
import sklcomp, sklcomp.solvers
from sklcomp.multilabel import (
    PrivilegedLogisticClassifier,
    PrivilegedMultiLabelClassifier,
    StreamingLabelClassifier,
)
from sklcomp.recovery import recover_image

path = sklcomp.solvers.__path__
names = [module.name for module in pkgutil.walk_packages(path, "sklcomp.solvers.")]
kernels = {
    value
    for name in names
    for value in vars(importlib.import_module(name)).values()
    if isinstance(value, numba.core.dispatcher.Dispatcher)
    and not value.targetoptions.get("forceinline")
}
assert kernels or numba.config.DISABLE_JIT

def compiled():
    return {kernel.py_func.__name__: len(kernel.signatures) for kernel in kernels}

sklcomp.warmup()
before = compiled()
# Kernels that only others call are part of those when they come from the cache.
assert any(before.values()) or not kernels
picture = np.random.default_rng(0).random((40, 30))
picture[picture < 0.5] = np.nan
for dtype in (np.float32, np.float64):
    for order in (1, 1.5, 2):
        recover_image(picture.astype(dtype), order=order)
    X = np.random.default_rng(0).random((40, 5)).astype(dtype)
    y = X[:, :3] > 0.5
    for rank in (None, 2):
        for features in (X, sparse.csr_array(X)):
            PrivilegedMultiLabelClassifier(rank=rank, max_iter=99).fit(features, y)
    for features in (X, sparse.csr_array(X)):
        model = StreamingLabelClassifier().fit(features, y[:, :2])
        model.add_labels(features, y[:, 2])
        unrelated = np.roll(y, 1, axis=0)
        PrivilegedLogisticClassifier().fit(features, unrelated)
        PrivilegedLogisticClassifier(threshold="f1").fit(features, unrelated[:, 0])
        PrivilegedLogisticClassifier(class_weight="balanced").fit(features, unrelated)
        PrivilegedLogisticClassifier([1.0], coupling=None).fit(features, y, X[:, 3])
assert compiled() == before
"""
    )


def test_show_versions_names_what_a_report_needs(capsys):
    sklcomp.show_versions()
    lines = capsys.readouterr().out.splitlines()
    names = [line.partition(":")[0] for line in lines]
    assert lines[0] == f"sklcomp: {sklcomp.__version__}"
    assert {"python", "platform", "numpy", "scikit-learn", "numba"} <= set(names)
    assert f"numpy: {importlib.metadata.version('numpy')}" in lines
    assert lines[names.index("thread pools") + 1].startswith("    ")


def private_sklearn_names(source):
    """Names in the imports of a module that scikit-learn may change at will."""
    imported = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
    return [
        name
        for name in imported
        if name.startswith("sklearn.")
        and (
            name.split(".")[1] in {"callback", "experimental"}
            or any(part[0] == "_" and part[:2] != "__" for part in name.split("."))
        )
    ]


@pytest.mark.parametrize(
    ("line", "is_private"),
    [
        ("from sklearn.utils._param_validation import Interval", True),
        ("from sklearn.base import _fit_context", True),
        ("import sklearn.callback", True),
        ("from sklearn import callback", True),
        ("from sklearn.experimental import enable_iterative_imputer", True),
        ("from sklearn.utils.validation import validate_data", False),
        ("from sklearn import __version__", False),
        ("from scipy._lib import doccer", False),
    ],
)
def test_scan_knows_a_private_name(line, is_private):
    assert bool(private_sklearn_names(line)) == is_private


def test_one_file_imports_private_sklearn_names():
    users = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in PACKAGE.rglob("*.py")
        if (names := private_sklearn_names(path.read_text(encoding="utf-8")))
    }
    users.pop("utils/_sklearn.py", None)
    assert users == {}


def test_version_is_stated_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert "version" in project["project"]["dynamic"]
    assert importlib.metadata.version("sklcomp") == sklcomp.__version__
    for path in PACKAGE.rglob("*.py"):
        stated = sklcomp.__version__ in path.read_text(encoding="utf-8")
        assert stated == (path.name == "_version.py"), path


def test_changelog_has_an_unreleased_section():
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    headings = [line.strip("# []") for line in lines if line.startswith("## ")]
    assert headings[0] == "Unreleased"
