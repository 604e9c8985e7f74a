import copy
import gc
import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import EarlyStopping

from sklcomp.datasets import make_unpaired_digits
from sklcomp.translation._net import CycleGANNet
from tests.helpers.translators import (
    Ask,
    Keep,
    Scale,
    Watch,
    draw,
    draw_domains,
    raising,
    same,
    translator,
    weights_in,
)

LOSSES = {
    "cycle_a", "cycle_b", "identity_a", "identity_b", "generator_ab", "generator_ba",
    "discriminator_a", "discriminator_b",
}  # fmt: skip


def mixed(A, B, labels=(0, 1)):
    """Rows of both domains in random order, each domain in its own, and labels."""
    is_b = np.arange(len(A) + len(B)) >= len(A)
    is_b = np.random.default_rng(0).permutation(is_b)
    X = np.empty((len(is_b), *A.shape[1:]), A.dtype)
    X[~is_b], X[is_b] = A, B
    return X, np.asarray(labels)[is_b.astype(int)]


def test_it_learns_a_known_translation():
    digits = make_unpaired_digits(60, image_size=8, random_state=0)
    fitted = translator(
        digits.image_shape,
        n_filters=8,
        n_blocks=1,
        batch_size=10,
        max_epochs=20,
        lr=3e-3,
    ).fit(digits.data, digits.target)
    for X, method, want in (
        (digits.data_a, "transform", digits.translate(digits.data_a)),
        (digits.data_b, "inverse_transform", digits.translate_back(digits.data_b)),
    ):
        error = np.abs(getattr(fitted, method)(X) - want).mean()
        assert error < 0.7 * np.abs(X - want).mean()


@pytest.mark.parametrize("identity_weight", [0.0, 5.0])
@pytest.mark.parametrize("shape", [(8, 8, 3), (6,)])
def test_history_has_every_loss_of_every_epoch(shape, identity_weight):
    fitted = translator(max_epochs=3, identity_weight=identity_weight)
    fitted.fit(*draw_domains(shape=shape))
    assert fitted.n_iter_ == 3
    names = {name for name in LOSSES if identity_weight or "identity" not in name}
    assert fitted.history_.keys() == names
    for values in fitted.history_.values():
        assert values.shape == (3,)
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    "labels", [(0, 1), ("horse", "zebra"), (False, True), (-1, 5.0)]
)
def test_labels_of_rows_are_the_images_of_both_domains(labels):
    A, B = draw_domains()
    want = translator().fit(A, B)
    X, y = mixed(A, B, labels)
    fitted = translator().fit(X, y)
    assert same(want, fitted)
    np.testing.assert_array_equal(fitted.classes_, labels)
    np.testing.assert_array_equal(want.classes_, [0, 1])
    for form in (list(y), pd.Series(y), y.astype(object)):
        assert same(want, translator().fit(X, form))
    with pytest.warns(DataConversionWarning, match="column-vector"):
        assert same(want, translator().fit(X, y[:, None]))


def test_all_classes_but_the_first_are_the_other_domain():
    A, B = draw_domains(6, 8)
    names = np.array(["apple"] * 6 + ["pear", "orange"] * 4)
    fitted = translator().fit(np.concatenate([A, B]), names)
    assert same(fitted, translator().fit(A, B))
    assert list(fitted.classes_) == ["apple", "orange", "pear"]


def test_a_column_beside_rows_of_one_feature_is_the_other_domain():
    A, B = draw_domains(shape=(1,))
    fitted = translator().fit(A, B)
    assert same(fitted, translator().fit(*mixed(A, B)))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (np.zeros(9), "needs two domains; y has 1 class"),
        (["zebra"] * 9, "y has 1 class: .*zebra"),
        (np.zeros(8), "inconsistent numbers of samples"),
        (np.r_[np.zeros(8), np.nan], "y contains NaN"),
    ],
)
def test_labels_that_cannot_be_used(y, message):
    with pytest.raises(ValueError, match=message):
        translator().fit(draw(9), y)


def test_one_row_cannot_be_two_domains():
    with pytest.raises(ValueError, match="1 sample"):
        translator().fit(draw(1), [0])
    with pytest.raises(ValueError, match="Reshape your data"):
        translator().fit(draw(1)[0, 0, :, 0], np.zeros(8))
    with (
        pytest.raises(ValueError, match="Reshape your data"),
        pytest.warns(DataConversionWarning),
    ):
        translator().fit(draw(1)[0, 0, :, 0], np.zeros((8, 1)))
    # One of each can.
    assert translator().fit(draw(1), draw(1, seed=1)).n_iter_ == 2
    assert translator().fit(draw(2), [0, 1]).n_iter_ == 2


def test_cycle_is_there_and_back():
    A, B = draw_domains()
    fitted = translator().fit(A, B)
    back = fitted.inverse_transform(fitted.transform(A))
    np.testing.assert_allclose(fitted.cycle(A), back, atol=1e-6)
    assert not np.allclose(back, A, atol=0.1)


def test_score_is_the_mean_error_of_the_domains():
    A, B = draw_domains()
    fitted = translator(generator=(Scale(0.5), Scale(1.0)), lr=1e-12).fit(A, B)
    errors = [0.5 * np.abs(images).mean() for images in (A, B)]
    score = fitted.score(A, B)
    assert score == pytest.approx(-np.mean(errors), rel=1e-5)
    assert fitted.score(*mixed(A, B)) == pytest.approx(score, rel=1e-6)
    assert fitted.score(A) == pytest.approx(-errors[0], rel=1e-5)
    # A domain may be missing, as in a fold.
    assert fitted.score(A, np.zeros(9)) == pytest.approx(-errors[0], rel=1e-5)
    assert fitted.score(B, np.ones(7)) == pytest.approx(-errors[1], rel=1e-5)
    assert fitted.score(B[:1], [1]) < 0


def test_same_seed_same_bits_and_generators_untouched():
    A, B = draw_domains()
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    settings = {"pool_size": 3}
    fits = [translator(**settings).fit(A, B) for _ in range(2)]
    fits[0].transform(A)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(
        numpy_state,
        np.random.get_state()[1],  # noqa: NPY002
    )
    assert torch.get_num_threads() == threads
    assert same(*fits)
    np.testing.assert_array_equal(fits[0].transform(A), fits[1].transform(A))
    assert not same(fits[0], translator(**settings, random_state=1).fit(A, B))
    rng = np.random.RandomState(0)
    assert same(translator(**settings, random_state=rng).fit(A, B), fits[0])
    assert not same(translator(**settings, random_state=rng).fit(A, B), fits[0])


def test_threads_of_torch(monkeypatch):
    threads = []
    watch = Watch(after_step=lambda *_: threads.append(torch.get_num_threads()))
    net_params = {"callbacks": [watch]}
    before = torch.get_num_threads()
    A, B = draw_domains(shape=(3,))
    fitted = translator(n_threads=2, net_params=net_params, max_epochs=1).fit(A, B)
    assert set(threads) == {2}
    assert torch.get_num_threads() == before
    monkeypatch.setattr(CycleGANNet, "train_step", raising(MemoryError))
    with pytest.raises(MemoryError):
        fitted.fit(A, B)
    assert torch.get_num_threads() == before


def halve(X):
    return X / 2


def double(X):
    return X * 2


def test_pipeline():
    A, B = (images.reshape(len(images), -1) for images in draw_domains())
    X, y = mixed(A, B)
    half = FunctionTransformer(halve, double)
    pipeline = make_pipeline(half, translator((8, 8, 3))).fit(X, y)
    alone = translator((8, 8, 3)).fit(X / 2, y)
    np.testing.assert_array_equal(pipeline.transform(A), alone.transform(A / 2))
    np.testing.assert_array_equal(
        pipeline.inverse_transform(B / 2), 2 * alone.inverse_transform(B / 2)
    )
    assert pipeline.score(X, y) == alone.score(X / 2, y)
    assert alone.fit_transform(X / 2, y).shape == X.shape


def test_grid_search_with_labels():
    X, y = mixed(*draw_domains())
    grid = {"cycle_weight": [1.0, 10.0], "net__optimizer__weight_decay": [0.0, 0.1]}
    search = GridSearchCV(translator(max_epochs=1), grid, cv=2, error_score="raise")
    search.fit(X.reshape(len(X), -1), y)
    scores = search.cv_results_["mean_test_score"]
    assert len(set(scores)) == 4
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(
        again.transform(X.reshape(len(X), -1)), search.transform(X.reshape(len(X), -1))
    )


def test_parameters_of_the_net():
    A, B = draw_domains()
    watch = Watch()
    estimator = translator(net_params={"optimizer__weight_decay": 0.1})
    assert estimator.get_params()["net__optimizer__weight_decay"] == 0.1
    given = estimator.net_params
    estimator.set_params(net__callbacks=[watch], net__discriminator_optimizer__lr=0.5)
    assert given == {"optimizer__weight_decay": 0.1}
    fitted = clone(estimator).fit(A, B)
    assert fitted.net_params.keys() == {
        "optimizer__weight_decay",
        "callbacks",
        "discriminator_optimizer__lr",
    }
    (group,) = fitted.net_.optimizer_.param_groups
    assert group["weight_decay"] == 0.1
    assert group["initial_lr"] == 2e-4
    assert group["betas"] == (0.5, 0.999)
    (group,) = fitted.net_.discriminator_optimizer_.param_groups
    assert group["weight_decay"] == 0
    assert group["initial_lr"] == 0.5
    assert any(isinstance(callback, Watch) for _, callback in fitted.net_.callbacks_)
    with pytest.raises(ValueError, match="unexpected argument.* foo"):
        translator().set_params(net__foo=1).fit(A, B)
    with pytest.raises(ValueError, match="Invalid parameter 'foo'"):
        translator().set_params(foo=1)


def test_other_optimizers_need_not_know_the_parameters_of_adam():
    A, B = draw_domains()
    net_params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.5}
    fitted = translator(net_params=net_params).fit(A, B)
    assert fitted.net_.optimizer_.param_groups[0]["momentum"] == 0.5
    assert isinstance(fitted.net_.discriminator_optimizer_, torch.optim.Adam)
    net_params = {"optimizer": torch.optim.AdamW, "optimizer__betas": (0.7, 0.8)}
    fitted = translator(net_params=net_params).fit(A, B)
    assert fitted.net_.optimizer_.param_groups[0]["betas"] == (0.7, 0.8)


def test_pickles_are_whole_and_hold_every_network_once(tmp_path):
    A, B = draw_domains()
    fitted = translator(n_filters=16).fit(A, B)
    fitted.cycle(A)
    joblib.dump(fitted, tmp_path / "fitted")
    for again in (
        pickle.loads(pickle.dumps(fitted)),
        joblib.load(tmp_path / "fitted"),
        copy.deepcopy(fitted),
    ):
        np.testing.assert_array_equal(again.transform(A), fitted.transform(A))
        np.testing.assert_array_equal(
            again.inverse_transform(B), fitted.inverse_transform(B)
        )
        assert again.generator_ab_ is again.net_.module_
        assert again.discriminator_b_ is again.net_.discriminator_b_
    for name in ("generator_ab_", "generator_ba_", "discriminator_a_"):
        for part in getattr(fitted, name).modules():
            assert not part._forward_hooks
            assert not part._forward_pre_hooks
    empty = clone(fitted)
    assert not hasattr(empty, "generator_ab_")
    for method in ("transform", "inverse_transform", "cycle", "score"):
        with pytest.raises(NotFittedError):
            getattr(empty, method)(A)


class Pickler(pickle.Pickler):
    """Notes the tensors that it stores itself."""

    def __init__(self, file):
        super().__init__(file)
        self.tensors = []

    def reducer_override(self, value):
        if issubclass(type(value), torch.Tensor):
            self.tensors.append(value)
        return NotImplemented


def test_all_tensors_of_a_pickle_are_left_to_the_net():
    # Which loads what was on a GPU where there is none.
    pickler = Pickler(io.BytesIO())
    pickler.dump(translator().fit(*draw_domains()))
    assert not pickler.tensors


def test_fitting_often_leaves_nothing_behind():
    A, B = draw_domains()
    model = translator(max_epochs=1)

    def count():
        model.fit(A, B).transform(A)
        gc.collect()
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    counts = [count() for _ in range(4)]
    assert counts[1] == counts[3]


def test_callbacks_of_scikit_learn_and_of_skorch_stop():
    A, B = draw_domains()
    ask = Ask(after=2)
    fitted = translator(max_epochs=9, decay_start=1).set_callbacks(ask).fit(A, B)
    assert fitted.n_iter_ == len(ask.seen) == 2
    assert same(fitted, translator(max_epochs=2, decay_start=1).fit(A, B))
    stop = EarlyStopping(monitor="cycle_a", patience=2, threshold=10.0, sink=repr)
    fitted = translator(max_epochs=9, net_params={"callbacks": [stop]}).fit(A, B)
    assert fitted.n_iter_ == 3


def test_verbose_prints_the_losses(capsys):
    translator().fit(*draw_domains())
    assert not capsys.readouterr().out
    translator(verbose=1).fit(*draw_domains())
    printed = capsys.readouterr().out
    assert "cycle_a" in printed
    assert "discriminator_b" in printed


def test_no_warnings_in_normal_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = translator().fit(*draw_domains())
        fitted.score(*draw_domains())
    assert torch.isfinite(weights_in(fitted)).all()
    assert isinstance(
        translator(generator=Keep()).fit(draw(2), [0, 1]).score(draw(2)), float
    )
