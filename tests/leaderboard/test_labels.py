from __future__ import annotations

import pytest

from bench.leaderboard.labels import full_label, in_words, label, near_one, small_number
from bench.leaderboard.metrics import MetricKey


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (MetricKey("clean_accuracy"), "clean"),
        (MetricKey("union_accuracy", "", "sweep", "all"), "union"),
        (MetricKey("robust_accuracy", attack="sweep", norm="linf", eps=8 / 255), "sweep L-inf 8/255"),
        (MetricKey("robust_accuracy_after", attack="square", norm="l2", eps=1.5), "after square L2 1.5"),
        (MetricKey("median_distance", "", "sigma_zero", "l0"), "median L0"),
        (MetricKey("corruption_accuracy", "all"), "all corruptions"),
        (MetricKey("corruption_accuracy", "gaussian_noise/3"), "gaussian noise 3"),
        (MetricKey("retrained_accuracy", "mask_only:gradient/30"), "retrained_accuracy_30 mask_only:gradient"),
        (MetricKey("roar_score", "gradient"), "roar_score gradient"),
        (MetricKey("kept_share", "fooled_itself", norm="l2"), "kept_share fooled_itself L2"),
        (MetricKey("insertion", "gradient", attack="frame", norm="linf", eps=0.1), "insertion/gradient frame L-inf 0.1"),
        (MetricKey("stability/cosine", "gradient", attack="uniform", norm="linf", eps=0.1), "stability/cosine/gradient uniform L-inf 0.1"),
        (MetricKey("agreement/top_k", "lrp/grad_cam"), "agreement/top_k/lrp/grad_cam"),
        (MetricKey("gradient_norm", attack="uniform", norm="linf", eps=0.1), "gradient_norm uniform L-inf 0.1"),
    ],
)  # fmt: skip
def test_a_column_is_called_as_it_always_was(key: MetricKey, expected: str) -> None:
    assert label(key) == expected


def test_the_attack_of_a_robust_accuracy_is_left_out_where_there_is_one_alone() -> None:
    assert label(MetricKey("robust_accuracy", attack="sweep", norm="linf", eps=0.1), attack=False) == "L-inf 0.1"


def test_a_sentence_names_all_of_a_key() -> None:
    assert (
        full_label(MetricKey("robust_accuracy", attack="sweep", norm="linf", eps=0.1))
        == "robust accuracy (sweep, L-inf 0.1)"
    )
    assert full_label(MetricKey("prediction_kept", "gradient", "top_k")) == "prediction kept/gradient (top_k)"
    assert full_label(MetricKey("clean_accuracy")) == "clean accuracy"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.999912, "0.999912"), (0.99960, "0.99960"), (0.99512, "0.9951"), (0.99, ""), (1.0, ""), (1.2, ""), (0.5, "")],
)
def test_values_near_one_keep_the_digits_that_tell_them_apart(value: float, shown: str) -> None:
    assert near_one(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.000041, "0.000041"), (0.0004, "0.00040"), (0.5, "0.50"), (0.0, "0")])
def test_small_numbers_are_written_out_with_two_digits(value: float, shown: str) -> None:
    assert small_number(value) == shown


def test_a_map_of_the_users_keeps_the_name_of_its_file_in_words() -> None:
    assert in_words(MetricKey("roar_score", "my_maps.py:squared")) == "roar score my_maps.py:squared"
    assert in_words(MetricKey("kept_share", "fooled_itself")) == "kept share fooled itself"
