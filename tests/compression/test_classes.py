import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier

from sklcomp.compression._classes import all_classes, name_classes


class Estimator:
    def __init__(self, classes):
        self.classes_ = np.array(classes)


def frozen_net(classes):
    net = NeuralNetClassifier(None)
    net.classes_inferred_ = np.array(classes)
    return FrozenEstimator(net)


def test_as_many_classes_as_outputs_are_taken_in_sorted_order():
    np.testing.assert_array_equal(all_classes(np.array(["a", "b"]), 2), ["a", "b"])
    np.testing.assert_array_equal(all_classes(np.array([3, 7]), 2), [3, 7])


def test_output_k_is_the_class_k_where_y_lacks_some():
    np.testing.assert_array_equal(all_classes(np.array([1, 3]), 5), np.arange(5))


@pytest.mark.parametrize("seen", [["a", "b"], [-1, 1], [0, 3], [0.0, 1.0]])
def test_classes_that_no_output_can_stand_for(seen):
    with pytest.raises(ValueError, match="y has 2 classes.*the net has 3 outputs"):
        all_classes(np.array(seen), 3)


def test_a_net_that_is_not_trained_learns_its_classes_from_y():
    seen = np.array(["a", "b"])
    np.testing.assert_array_equal(name_classes(object(), seen, None), seen)


def test_a_trained_source_says_its_classes_itself():
    own = ["a", "b", "c"]
    for source in (FrozenEstimator(Estimator(own)), frozen_net(own)):
        for seen in (np.array(["a", "c"]), None):
            np.testing.assert_array_equal(name_classes(source, seen, 3), own)


def test_strange_classes_are_codes_of_a_net_and_a_fault_of_other_estimators():
    seen = np.array(["x", "y"])
    np.testing.assert_array_equal(name_classes(frozen_net([0, 1]), seen, 2), seen)
    with pytest.raises(ValueError, match=r"y contains 'x'; the Estimator knows"):
        name_classes(FrozenEstimator(Estimator([0, 1])), seen, 2)
