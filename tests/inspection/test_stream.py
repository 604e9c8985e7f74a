import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, roc_auc_score

from sklcomp.datasets import make_multilabel_stream
from sklcomp.inspection import LabelStreamDisplay
from sklcomp.multilabel import StreamingLabelClassifier


@pytest.fixture
def stream():
    """A classifier of four labels and three that came later, and test data."""
    X, y = make_multilabel_stream(200, 6, n_initial=4, n_new=3, random_state=0)
    model = StreamingLabelClassifier(random_state=0).fit(X[:100], y[:100, :4])
    for label in (4, 5, 6):
        model.add_labels(
            X[:40], y[:40, label], y_past=y[:40, :label], label_names=f"late {label}"
        )
    return model, X[100:], y[100:]


def test_draws_what_the_classifier_learned(stream):
    model, X, y = stream
    display = LabelStreamDisplay.from_estimator(model, X, y)
    assert display.ax_.shape == (3,)
    assert display.figure_ is display.ax_[0].figure
    shown = np.ma.filled(display.ax_[0].images[0].get_array(), np.nan)
    assert shown.shape == (3, 6)
    for row, coef in zip(shown, model.representation_, strict=True):
        np.testing.assert_array_equal(row[: len(coef)], coef)
        assert np.isnan(row[len(coef) :]).all()
    bars = [bar.get_width() for bar in display.ax_[1].patches]
    np.testing.assert_array_equal(bars, model.prior_scale_)
    scores = model.decision_function(X)
    expected = [roc_auc_score(y[:, j], scores[:, j]) for j in range(7)]
    np.testing.assert_allclose(display.score, expected)
    bars = [bar.get_width() for bar in display.ax_[2].patches]
    np.testing.assert_allclose(bars, expected[4:])
    np.testing.assert_allclose(
        display.ax_[2].lines[0].get_xdata(), np.mean(expected[:4])
    )
    labels = [text.get_text() for text in display.ax_[0].get_yticklabels()]
    assert labels == ["late 4", "late 5", "late 6"]


def test_without_data_in_an_own_figure(stream):
    figure = plt.figure()
    display = LabelStreamDisplay.from_estimator(stream[0], figure=figure)
    assert display.figure_ is figure
    assert display.ax_.shape == (2,)
    assert display.score is None


def test_sparse_labels_other_scores_and_constant_columns(stream):
    model, X, y = stream
    y = y.copy()
    y[:, 5] = 0
    display = LabelStreamDisplay.from_estimator(
        model, sparse.csr_array(X), sparse.csr_array(y), scoring="average_precision"
    )
    assert np.isnan(display.score[5])
    expected = average_precision_score(y[:, 0], model.decision_function(X)[:, 0])
    assert display.score[0] == pytest.approx(expected)
    assert display.ax_[2].get_xlabel() == "average precision"


def test_many_labels_share_few_names():
    X, y = make_multilabel_stream(60, 5, n_initial=80, n_new=40, random_state=0)
    model = StreamingLabelClassifier(random_state=0).fit(X, y[:, :80])
    model.add_labels(X, y[:, 80:], y_past=y[:, :80])
    display = LabelStreamDisplay.from_estimator(model)
    assert len(display.ax_[0].get_xticks()) <= 40
    assert len(display.ax_[0].get_yticks()) <= 40
    display.figure_.canvas.draw()


def test_what_cannot_be_drawn_is_named(stream):
    model, X, y = stream
    with pytest.raises(NotFittedError):
        LabelStreamDisplay.from_estimator(StreamingLabelClassifier())
    with pytest.raises(ValueError, match="no label was added"):
        LabelStreamDisplay.from_estimator(StreamingLabelClassifier().fit(X, y))
    with pytest.raises(ValueError, match=r"shape \(100, 4\), .*expecting 7 column"):
        LabelStreamDisplay.from_estimator(model, X, y[:, :4])
    with pytest.raises(ValueError, match="scoring='f1' is unknown"):
        LabelStreamDisplay.from_estimator(model, X, y, scoring="f1")
