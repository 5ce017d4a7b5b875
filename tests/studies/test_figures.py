from __future__ import annotations

import pandas as pd
import pytest

from bench.studies.figures import _retraining_figures


def test_a_panel_of_retraining_is_the_mean_over_a_nets_seeds() -> None:
    values = {"net": 0.8, "net_seed1": 0.7, "other": 0.5}
    shares = [
        (subject, change) for subject, change in (("gradient/30", 0.0), ("gradient/10", 0.1), ("unmasked/0", 0.0))
    ]
    rows = [
        {
            "suite": "roar_quick",
            "metric": "retrained_accuracy",
            "model": model,
            "subject": subject,
            "value": value + more,
        }
        for model, value in values.items()
        for subject, more in shares
    ]
    (figure,) = _retraining_figures(pd.DataFrame(rows)).values()
    assert [panel.get_title() for panel in figure.axes] == ["net, 2 seeds: roar_quick", "other: roar_quick"]
    (line,) = figure.axes[0].get_lines()
    assert line.get_xydata().tolist() == [
        [pytest.approx(0.1), pytest.approx(0.85)],
        [pytest.approx(0.3), pytest.approx(0.75)],
    ]
