from __future__ import annotations

from bench.cli.output.board_formats import as_latex
from bench.cli.output.latex import comparison_table, grouped
from bench.leaderboard.boards import Board, Cell, Column, Row
from bench.leaderboard.labels import label
from bench.leaderboard.metrics import MetricKey

CLEAN, UNION = MetricKey("clean_accuracy"), MetricKey("union_accuracy")
LINF = [MetricKey("robust_accuracy", attack="sweep", norm="linf", eps=eps) for eps in (4 / 255, 8 / 255)]
L2 = MetricKey("robust_accuracy", attack="sweep", norm="l2", eps=0.5)


def columns(*keys: MetricKey) -> tuple[Column, ...]:
    return tuple(Column(key, label(key, attack=False), "higher", "share") for key in keys)


def test_columns_of_a_norm_stand_under_one_heading_with_their_radii() -> None:
    own = columns(CLEAN, *LINF, L2, UNION)
    row = Row("at_l2", "at_l2", tuple(Cell(value, value - 0.01, value + 0.01) for value in (0.9, 0.6, 0.4, 0.5, 0.3)))
    lines = as_latex([Board("cross_norm", {}, own, (row,), sort=own[0])]).splitlines()
    assert lines[1] == "\\begin{tabular}{lrrrrr}"
    assert lines[3:6] == [
        " &  & \\multicolumn{2}{c}{$L_\\infty$} &  &  \\\\",
        "\\cmidrule(lr){3-4}",
        "model & clean & 4/255 & 8/255 & $L_2$ 0.5 & union \\\\",
    ]
    assert lines[7] == "at\\_l2 & 90.0 & 60.0 & 40.0 & 50.0 & 30.0 \\\\"
    lines = as_latex([Board("cross_norm", {}, own, (row,), sort=own[0])], intervals=True).splitlines()
    assert lines[7].startswith("at\\_l2 & 90.0 {\\scriptsize [89.0, 91.0]} & 60.0 {")


def test_the_best_value_is_bold_and_its_interval_is_not() -> None:
    own = columns(CLEAN)
    rows = tuple(Row(name, name, (Cell(value, 0.1, 0.95),)) for name, value in (("a", 0.9), ("b", 0.8)))
    text = as_latex([Board("tiny", {}, own, rows, sort=own[0])], intervals=True)
    assert "a & \\textbf{90.0} {\\scriptsize [10.0, 95.0]} \\\\" in text


def test_at_one_radius_it_is_the_subjects_that_share_a_heading() -> None:
    keys = [
        MetricKey("stability/cosine", subject, attack="uniform", norm="linf", eps=8 / 255)
        for subject in ("gradient", "smoothgrad")
    ]
    assert grouped([(key, label(key)) for key in keys]) == [
        ("stability/cosine uniform L-inf 8/255", ["gradient", "smoothgrad"])
    ]
    both = [(key, label(key)) for key in (LINF[0], keys[0], LINF[1])]
    assert [shared for shared, _ in grouped(both)] == ["", "", ""]
    severities = [MetricKey("corruption_accuracy", f"gaussian_noise/{severity}") for severity in (1, 2)]
    assert grouped([(key, label(key)) for key in severities]) == [("gaussian noise", ["1", "2"])]


def test_rows_of_a_comparison_stand_in_groups_with_signs_and_powers_as_formulas() -> None:
    rows = [["clean", "-1.5 [-2.0, -1.0]", "4.6e-08*"], ["L-inf 4/255", "+3.0", "1"], ["L-inf 8/255", "+2.0", "1"]]
    text = comparison_table("at_l2 minus a&b", ["metric", "a&b", "p"], [CLEAN, *LINF], rows)
    assert text.splitlines() == [
        "% at_l2 minus a&b",
        "\\begin{tabular}{lrr}",
        "\\toprule",
        "metric & a\\&b & p \\\\",
        "\\midrule",
        "clean & $-$1.5 {\\scriptsize [$-$2.0, $-$1.0]} & $4.6\\cdot 10^{-8}$* \\\\",
        "\\addlinespace",
        "\\multicolumn{3}{l}{$L_\\infty$} \\\\",
        "\\quad 4/255 & $+$3.0 & 1 \\\\",
        "\\quad 8/255 & $+$2.0 & 1 \\\\",
        "\\bottomrule",
        "\\end{tabular}",
    ]
