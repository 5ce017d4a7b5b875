"""What stands in the page's tables and plots: the leaderboard's numbers, runs that can be compared side by side."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench.leaderboard.table import read_leaderboard
from bench.leaderboard.views import by_method
from tests.reporting.page.pages import (
    EVIL,
    EVIL_SCRIPT,
    Node,
    add_run,
    metric,
    page_of,
    parse,
    robustness,
)


def test_every_number_of_the_leaderboard_stands_in_a_table_with_its_interval(page: Node, folder: Path) -> None:
    rows = read_leaderboard(folder)
    shown = 0
    for board in page.with_class("board"):
        suite = board.find("h3")[0].text
        for line in board.find("tbody")[0].find("tr"):
            own = rows[(rows["suite"] == suite) & ("fashion_mnist/" + rows["model"] == line.attributes["data-model"])]
            cells = [node for node in line.find("td") if node.with_class("v")]
            assert sorted(float(cell.attributes["data-value"]) for cell in cells) == pytest.approx(sorted(own["value"]))
            for cell in cells:
                value = float(cell.attributes["data-value"])
                percent = "style" in cell.attributes
                text = f"{100 * value:.1f}" if percent else f"{value:.3f}" if value < 1000 else f"{value:,.0f}"
                low, high = (value - 0.02, value + 0.02)
                assert cell.with_class("v")[0].text == text
                if percent:
                    assert cell.with_class("ci")[0].text == f"[{100 * low:.1f}, {100 * high:.1f}]"
                shown += 1
    assert shown == len(rows)


def test_rows_are_sorted_and_headers_say_so(page: Node) -> None:
    for board in page.with_class("board"):
        headers = board.find("thead")[0].find("th")
        (place,) = [at for at, header in enumerate(headers) if header.attributes["aria-sort"] != "none"]
        assert headers[place].attributes["aria-sort"] == "descending"
        values = [float([node for node in row.children if isinstance(node, Node)][place].attributes["data-value"])
                  for row in board.find("tbody")[0].find("tr")]  # fmt: skip
        assert values == sorted(values, reverse=True)
        assert all(header.find("button") for header in headers)


def test_the_best_of_a_column_is_marked_for_eyes_and_ears(page: Node) -> None:
    board = page.with_class("board")[0]
    assert board.find("h3")[0].text == "cross_norm"
    best = {cell.with_class("v")[0].text for cell in board.find("td") if cell.with_class("best")}
    assert "90.0" in best and "80.0" not in best
    for cell in board.find("td"):
        assert bool(cell.with_class("best")) == ("(best)" in cell.text)


def test_curves_tell_the_values_of_the_leaderboard(page: Node) -> None:
    (panel,) = [
        node for node in page.with_class("panel") if node.find("figcaption")[0].text == "Robust accuracy in L-inf"
    ]
    series = {node.attributes["data-model"]: node for node in panel.with_class("series")}
    assert set(series) == {"fashion_mnist/alpha", "fashion_mnist/beta", f"fashion_mnist/{EVIL}"}
    tips = [point.find("title")[0].text for point in series["fashion_mnist/alpha"].with_class("point")]
    assert tips == [
        "alpha, clean: 90.0 % [88.0, 92.0]",
        "alpha, L-inf 0.02: 75.0 % [73.0, 77.0]",
        "alpha, L-inf 0.05: 60.0 % [58.0, 62.0]",
        "alpha, L-inf 0.1: 45.0 % [43.0, 47.0]",
    ]
    heights = [float(point.attributes["y"]) for point in series["fashion_mnist/alpha"].with_class("point")]
    assert heights == sorted(heights)  # y grows downwards, accuracy falls
    steps = [second - first for first, second in itertools.pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.05)


def test_a_smaller_copy_of_a_suite_has_a_table_but_no_plots(page: Node) -> None:
    assert "quick" in [board.find("h3")[0].text for board in page.with_class("board")]
    assert not [node for node in page.with_class("plots") if node.find("h3")[0].text.startswith("quick")]


def test_trade_offs_mark_the_front(page: Node) -> None:
    (panel,) = [node for node in page.with_class("panel") if node.find("figcaption")[0].text == "Worst over all norms"]
    rows = [[cell.text for cell in row.walk() if cell.tag in ("th", "td")] for row in panel.find("tbody")[0].find("tr")]
    assert {row[0]: row[3] for row in rows} == {"alpha": "yes", "beta": "yes", EVIL: "no"}
    assert "from left to right: beta, alpha." in panel.find("desc")[0].text


def test_retrained_nets_have_curves_and_scores(page: Node) -> None:
    (section,) = [node for node in page.find("section") if node.attributes["id"] == "retraining"]
    curves, scores = section.with_class("panel")
    keys = [node.attributes["data-series"] for node in curves.with_class("series")]
    assert sorted(keys) == ["map blurred:gradient", "map gradient", "map random"]
    gradient = next(node for node in curves.with_class("series") if node.attributes["data-series"] == "map gradient")
    tips = [point.find("title")[0].text for point in gradient.with_class("point")]
    assert tips[0].startswith("alpha, gradient, 0 % removed: 90.0 %")
    assert tips[-1].startswith("alpha, gradient, 90 % removed: 60.0 %")
    assert [row.find("th")[0].text for row in scores.find("tbody")[0].find("tr")] == ["gradient", "blurred:gradient"]


def test_masking_verdicts_stand_beside_the_numbers_and_in_their_section(page: Node) -> None:
    board = page.with_class("board")[0]
    verdicts = {
        row.attributes["data-model"]: [node.text for node in row.with_class("badge")]
        for row in board.find("tbody")[0].find("tr")
    }
    assert verdicts["fashion_mnist/alpha"] == ["no sign"]
    assert verdicts["fashion_mnist/beta"] == ["masked"]
    assert verdicts[f"fashion_mnist/{EVIL}"] == []
    (section,) = [node for node in page.find("section") if node.attributes["id"] == "findings"]
    assert [node.text for node in section.find("h3")] == ["Gradient masking", "Other findings"]
    groups = section.find("details")
    assert [group.find("summary")[0].text.split()[0] for group in groups] == ["masked", "no", "warning"]
    assert ["open" in group.attributes for group in groups] == [True, False, False]
    assert groups[0].find("tr")[1].attributes["data-model"] == "fashion_mnist/beta"
    assert groups[0].find("td")[-1].text == "50 images probed: restart_gain 1.0 %"
    assert "bad_gradients" in section.text and EVIL_SCRIPT in section.text


def test_an_unknown_suite_still_gets_a_table(page: Node) -> None:
    (board,) = [node for node in page.with_class("board") if node.find("h3")[0].text == "strange"]
    headers = [header.text for header in board.find("thead")[0].find("th")]
    assert headers[2:] == ["clean %", "wobble/left", "wobble/right"]
    assert [cell.text for cell in board.with_class("v")] == ["90.0", "3.250", "1,234"]


def test_a_run_without_evidence_is_shown_and_named(tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", robustness(0.9, 0.5), manifest={})
    run_id = add_run(tmp_path, "beta", robustness(0.8, 0.5))
    (tmp_path / "runs" / run_id / "manifest.json").write_text("{broken")
    page = parse(page_of(tmp_path))
    assert page.text.count("not at hand: the manifest") == 2
    assert [row.attributes["data-model"] for row in page.with_class("board")[0].find("tbody")[0].find("tr")] == [
        "fashion_mnist/alpha",
        "fashion_mnist/beta",
    ]


def test_only_the_latest_run_of_a_model_is_shown(tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", robustness(0.9, 0.5), finished_at="2026-03-01T00:00:00+00:00")
    add_run(tmp_path, "alpha", robustness(0.6, 0.5), finished_at="2026-02-01T00:00:00+00:00")
    page = parse(page_of(tmp_path))
    (row,) = page.with_class("board")[0].find("tbody")[0].find("tr")
    assert row.with_class("v")[0].text == "90.0"


def test_runs_that_cannot_be_compared_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", robustness(0.9, 0.5))
    add_run(tmp_path, "beta", robustness(0.8, 0.5), suite_version=2)
    add_run(tmp_path, "gamma", robustness(0.8, 0.5), seed=1)
    assert len(parse(page_of(tmp_path)).with_class("board")) == 3


def test_a_metric_over_fewer_images_does_not_split_a_run(tmp_path: Path) -> None:
    few = metric("stability/cosine", 0.7, n_examples=61)
    add_run(tmp_path, "alpha", [metric("clean_accuracy", 0.9), few])
    (board,) = parse(page_of(tmp_path)).with_class("board")
    assert "100 images" in board.find("summary")[0].text


def test_many_columns_come_in_choices_and_the_overview_has_the_reference_radii(tmp_path: Path) -> None:
    wide = [metric("clean_accuracy", 0.9), metric("union_accuracy", 0.3, attack="sweep", norm="all")]
    for norm in ("linf", "l2", "l1"):
        for place, eps in enumerate((0.01, 0.05, 0.5, 1.5)):
            wide.append(metric("robust_accuracy", 0.8 - 0.1 * place, attack="sweep", norm=norm, eps=eps))
    add_run(tmp_path, "alpha", wide)
    (board,) = parse(page_of(tmp_path)).with_class("board")
    assert [option.text for option in board.find("option")] == ["overview", "L-inf", "L2", "L1", "all"]
    shown = [
        header.text
        for header in board.find("thead")[0].find("th")
        if "off" not in header.attributes.get("class", "").split()
    ]
    assert shown == ["model", "method", "clean %", "L-inf 0.05 %", "L2 1.5 %", "L1 0.5 %", "union %"]


def test_columns_keep_the_order_of_the_run_and_say_under_which_attack(tmp_path: Path) -> None:
    names = ("zeta/one", "alpha/two", "mid/three")
    where = {"attack": "uniform", "norm": "linf", "eps": 0.0157}
    add_run(tmp_path, "alpha", [metric(name, 0.5, **where) for name in names])
    (board,) = parse(page_of(tmp_path)).with_class("board")
    headers = [header.text for header in board.find("thead")[0].find("th")]
    assert headers[2:] == [f"{name} uniform L-inf 0.0157" for name in names]
    add_run(tmp_path, "alpha", [metric("zeta", 0.5, attack=attack) for attack in ("b", "a")], suite_name="two")
    board = parse(page_of(tmp_path)).with_class("board")[1]
    assert [header.text for header in board.find("thead")[0].find("th")][2:] == ["zeta b", "zeta a"]


def test_an_older_version_of_a_suite_is_shown_only_of_models_without_a_newer(tmp_path: Path) -> None:
    for model, version in (("both", 1), ("both", 2), ("old", 1)):
        add_run(tmp_path, model, robustness(0.9, 0.2), suite_version=version)
    add_run(tmp_path, "older", robustness(0.9, 0.2), suite_version=1)
    boards = parse(page_of(tmp_path)).with_class("board")
    models = [[row.find("th")[0].text for row in board.find("tbody")[0].find("tr")] for board in boards]
    assert models == [["both"], ["old", "older"]], "the newest version first, though it has fewer models"


@pytest.mark.parametrize("value", [float("inf"), 1e300])
def test_a_number_that_no_plot_has_a_place_for_stands_in_the_table_alone(tmp_path: Path, value: float) -> None:
    for name in ("value", "ci_high"):
        folder = tmp_path / name
        rows = robustness(0.8, 0.5)
        for place in (0, 2, 6):
            rows[place][name] = value
        add_run(folder, "alpha", rows)
        add_run(folder, "beta", robustness(0.8, 0.4))
        assert len(parse(page_of(folder)).with_class("board")) == 1


def test_values_near_one_stand_as_what_they_lack_in_tables_and_plots(tmp_path: Path) -> None:
    for model, cosine in (("lga", 0.999912), ("standard", 0.999089)):
        uniform = {"attack": "uniform", "norm": "linf", "eps": 4 / 255}
        own = metric("stability/cosine/gradient", cosine, **uniform)
        add_run(tmp_path, model, [metric("clean_accuracy", 0.9), own | {"ci_low": cosine - 1e-5, "ci_high": cosine}])
    page = parse(page_of(tmp_path))
    (board,) = page.with_class("board")
    header = board.find("thead")[0].find("th")[-1]
    assert header.text == "1 - stability/cosine/gradient uniform L-inf 4/255"
    assert header.attributes["aria-sort"] == "ascending" == header.find("button")[0].attributes["data-first"]
    assert [row.with_class("v")[1].text for row in board.find("tbody")[0].find("tr")] == ["0.000088", "0.00091"]
    assert "best" in board.find("tbody")[0].find("tr")[0].with_class("v")[1].attributes["class"]
    (panel,) = [node for node in page.with_class("panel") if "1 - stability" in node.find("figcaption")[0].text]
    rows = [[cell.text for cell in row.walk() if cell.tag in ("th", "td")] for row in panel.find("tbody")[0].find("tr")]
    assert [row[2] for row in rows] == ["0.000088 [0.000088, 0.000098]", "0.00091 [0.00091, 0.00092]"]
    assert [row[3] for row in rows] == ["yes", "no"]  # less is better there


def test_a_method_with_several_seeds_has_its_mean_and_spread_above_the_models(folder: Path) -> None:
    groups = {"alpha": "first", "beta": "first", EVIL: EVIL}
    page = parse(page_of(folder, by_method=lambda board: by_method(board, groups)))
    (means,) = page.with_class("methods")  # of the one suite that both seeds ran under
    board = next(one for one in page.with_class("board") if means in one.walk())
    assert board.find("h3")[0].text == "cross_norm"
    header, other, first = ([cell.text for cell in row.walk() if cell.tag in ("th", "td")] for row in means.find("tr"))
    assert header[:3] == ["method", "models", "clean %"] and header[-1] == "union %"
    assert first[:3] == ["first", "2", "85.0 ± 7.1"] and first[-1] == "40.0 ± 14.1"
    assert other[:3] == [EVIL, "1", "70.0"] and other[-1] == "50.0"
