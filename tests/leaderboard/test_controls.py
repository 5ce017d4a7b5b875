from __future__ import annotations

from bench.leaderboard.controls import beaten, control_findings
from bench.leaderboard.metrics import Direction, Metric, MetricKey


def figure(metric: str, subject: str, direction: Direction, value: float) -> tuple[MetricKey, Direction, float, int]:
    return MetricKey(metric, subject), direction, value, 10


def test_a_figure_is_beaten_by_the_best_control_of_its_metric_in_its_direction() -> None:
    figures = [
        figure("road", "gradient", "lower", 0.5),
        figure("road", "lrp", "lower", 0.3),
        figure("road", "control_random", "descriptive", 0.6),
        figure("road", "control_image", "descriptive", 0.4),
        figure("insertion", "gradient", "higher", 0.5),
        figure("insertion", "control_random", "descriptive", 0.4),
        figure("deletion", "gradient", "lower", 0.9),
    ]
    assert beaten(figures) == {MetricKey("road", "gradient"): "control_image"}


def test_a_control_that_is_just_as_good_counts_and_what_only_describes_is_never_beaten() -> None:
    figures = [
        figure("mass", "gradient", "higher", 0.25),
        figure("mass", "control_random", "descriptive", 0.25),
        figure("answer", "gradient", "descriptive", 0.1),
        figure("answer", "control_random", "descriptive", 0.9),
    ]
    assert beaten(figures) == {MetricKey("mass", "gradient"): "control_random"}


def test_what_follows_the_method_in_a_subject_must_agree() -> None:
    figures = [
        figure("cascade", "gradient/conv1", "lower", 0.5),
        figure("cascade", "gradient/all", "lower", 0.5),
        figure("cascade", "control_random/all", "descriptive", 0.1),
    ]
    assert list(beaten(figures)) == [MetricKey("cascade", "gradient/all")]


def test_the_finding_counts_and_names_them() -> None:
    metrics = [
        Metric(key, value, ci_low=value, ci_high=value, n_examples=count, direction=direction, unit="number")
        for key, direction, value, count in (
            figure("clean_accuracy", "", "higher", 0.9),
            figure("road", "gradient", "lower", 0.5),
            figure("road", "lrp", "lower", 0.3),
            figure("road", "control_image", "descriptive", 0.4),
        )
    ]
    (finding,) = control_findings(metrics)
    assert "1 of 2 figures: road of gradient (control_image)" in finding.evidence
    assert control_findings(metrics[:1]) == []
