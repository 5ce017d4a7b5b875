from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.leaderboard.table import read_leaderboard
from bench.reporting.page import PageSource, build_page
from tests.reporting.page.pages import (
    EVIL,
    EVIL_SCRIPT,
    Node,
    add_run,
    full_board,
    metric,
    page_of,
    parse,
    robustness,
    unpack_all,
)

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "leaderboard"
LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping", "manifest", "archive"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return page_of(folder)


@pytest.fixture(scope="module")
def page(html: str) -> Node:
    return parse(html)


@pytest.fixture(scope="module")
def shipped() -> tuple[str, Node]:
    """Of the shipped leaderboard what is on CIFAR-10; all of it takes long, and the browser's tests have it."""
    rows = read_leaderboard(SHIPPED)
    html = build_page(PageSource(rows[rows["dataset"] == "cifar10"], SHIPPED, "Shipped"))
    return html, parse(unpack_all(html))


def sections(page: Node) -> list[str]:
    return [node.attributes["id"] for node in page.find("section")]


def test_nothing_is_loaded_from_anywhere(page: Node, html: str) -> None:
    for node in page.walk():
        assert node.tag not in {"link", "iframe", "object", "embed", "base", "audio", "video"}
        for name, value in node.attributes.items():
            if name in LOADING:
                assert value.startswith("data:image/png;base64,"), (node.tag, name, value)
            if name in ("href", "xlink:href") and node.tag != "a":
                assert value.startswith("#"), (node.tag, value)
        if node.tag == "style":
            assert "@import" not in node.text and "url(" not in node.text
    assert not re.findall(r"url\((?!#)", html)
    assert "fetch(" not in html and "XMLHttpRequest" not in html and "import(" not in html


def test_the_policy_allows_the_own_script_and_nothing_else(page: Node, html: str) -> None:
    (policy,) = [node for node in page.find("meta") if node.attributes.get("http-equiv") == "Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.attributes["content"].split(";"))
    assert directives["default-src"] == "'none'"
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert directives["script-src"] == f"'sha256-{digest}'"


def test_words_from_files_cannot_become_elements(page: Node, html: str) -> None:
    assert len(page.find("script")) == 1
    for node in page.walk():
        assert not [name for name in node.attributes if name.startswith("on")], node
        assert not node.attributes.get("href", "").lower().startswith("javascript:")
    assert not page.find("img")  # no saliency here, and neither the model's name nor the study's figure may make one
    texts = page.text
    assert EVIL in texts
    assert EVIL_SCRIPT in texts
    assert "alert(2)" not in page.find("script")[0].text
    hostile = [row for row in page.find("tr") if row.attributes.get("data-model") == f"fashion_mnist/{EVIL}"]
    assert hostile and hostile[0].attributes["data-method"] == EVIL_SCRIPT
    assert "https://example.org/x.png" not in html


def test_a_packed_page_holds_the_same_and_nothing_that_could_run(folder: Path, page: Node) -> None:
    html = page_of(folder, plain=False)
    tree = parse(html)
    own, *blocks = tree.find("script")
    assert len(blocks) >= 6 and {block.attributes["type"] for block in blocks} == {"text/plain"}
    assert "type" not in own.attributes
    for block in blocks:
        assert re.fullmatch(r"[A-Za-z0-9+/=]+", block.text)
    assert parse(unpack_all(html)).find("main")[0].text == page.find("main")[0].text
    assert EVIL not in tree.text.replace(tree.with_class("board")[0].text, "")
    assert len(tree.with_class("board")) == 1 and "--plain" in tree.find("noscript")[0].text
    assert len(html) < 0.6 * len(page_of(folder))


def test_a_title_is_escaped_too(tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", [metric("wobble", 3.0)])
    page = parse(page_of(tmp_path, title=EVIL_SCRIPT))
    assert page.find("h1")[0].text == page.find("title")[0].text == EVIL_SCRIPT


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
    first = section.find("tbody")[0].find("tr")[0]
    assert first.attributes["data-model"] == "fashion_mnist/beta" and first.with_class("badge")[0].text == "masked"
    assert "bad_gradients" in section.text and EVIL_SCRIPT in section.text


def test_an_unknown_suite_still_gets_a_table(page: Node) -> None:
    (board,) = [node for node in page.with_class("board") if node.find("h3")[0].text == "strange"]
    headers = [header.text for header in board.find("thead")[0].find("th")]
    assert headers[2:] == ["clean %", "wobble/left", "wobble/right"]
    assert [cell.text for cell in board.with_class("v")] == ["90.0", "3.250", "1,234"]


def test_studies_are_shown_without_their_markup_getting_out(page: Node) -> None:
    (study,) = page.with_class("study")
    assert study.find("h3")[0].text == "lga"
    assert [cell.text for cell in study.find("td")] == ["stable", "supported"]
    assert study.with_class("figure-name")[0].text == "[figure: a figure]"
    assert [link.attributes["href"] for link in study.find("a")] == ["https://example.org"]


def test_sections_without_data_are_left_out(tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", [metric("wobble", 3.0)], suite_name="strange", manifest={"suite": {}})
    page = parse(page_of(tmp_path))
    assert sections(page) == ["leaderboard", "models", "reading"]
    assert not page.with_class("panel")
    assert "recorded a finding" in page.find("header")[0].text
    links = [link.attributes["href"] for link in page.find("nav")[0].find("a")]
    assert links == ["#leaderboard", "#models", "#reading"]


def test_no_section_is_empty(page: Node) -> None:
    found = sections(page)
    assert found == ["leaderboard", "curves", "tradeoffs", "retraining", "findings", "studies", "models", "reading"]
    for section in page.find("section"):
        assert len(section.text) > len(section.find("h2")[0].text) + 40


@pytest.mark.parametrize("which", ["made up", "shipped"])
def test_everything_can_be_read_without_seeing_it(which: str, page: Node, shipped: tuple[str, Node]) -> None:
    tree = page if which == "made up" else shipped[1]
    ids = [node.attributes["id"] for node in tree.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    plots = [node for node in tree.find("svg") if node.attributes.get("role") == "img"]
    assert plots
    for plot in plots:
        title, description = plot.attributes["aria-labelledby"].split()
        texts = {node.attributes.get("id"): node.text for node in plot.walk() if node.tag in ("title", "desc")}
        assert len(texts[title]) > 10 and len(texts[description]) > 60
        assert plot.with_class("point")
    for panel in tree.with_class("panel"):
        assert panel.find("figcaption")[0].text
        points = {point.find("title")[0].text for point in panel.with_class("point")}
        assert len(points) >= 2 and panel.find("tbody")[0].find("tr")
    for svg in tree.find("svg"):
        assert svg.attributes.get("role") == "img" or svg.attributes.get("aria-hidden") == "true"
    for table in tree.find("table"):
        assert table.find("caption") or table.find("th"), table.text[:80]
        assert all(header.attributes.get("scope") for header in table.find("th")) or not table.find("caption")
    for node in tree.walk():
        target = node.attributes.get("href", "")
        if target.startswith("#") and len(target) > 1:
            assert target[1:] in ids, target
    for control in [*tree.find("input"), *tree.find("select")]:
        assert any(control in label.walk() for label in tree.find("label"))
    levels = [int(node.tag[1]) for node in tree.walk() if re.fullmatch(r"h[1-6]", node.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(second - first <= 1 for first, second in itertools.pairwise(levels))
    assert tree.find("html")[0].attributes["lang"] == "en"


def test_the_page_has_every_model_and_its_plots(shipped: tuple[str, Node]) -> None:
    html, page = shipped
    rows = read_leaderboard(SHIPPED)
    models = {f"cifar10/{model}" for model in rows.loc[rows["dataset"] == "cifar10", "model"]}
    assert {node.attributes["data-model"] for node in page.with_class("model")} == models
    assert len(page.with_class("panel")) >= 7
    assert len(html.encode()) < 80_000 + 10_000 * len(models)


def test_the_same_leaderboard_makes_the_same_page_in_another_process(folder: Path, html: str) -> None:
    code = "import sys; from pathlib import Path; from tests.reporting.page.pages import page_of; "
    code += f"sys.stdout.write(page_of(Path({str(folder)!r})))"
    environment = {**os.environ, "PYTHONHASHSEED": "5", "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == html


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
    assert headers[2:] == [f"{name} L-inf 0.0157" for name in names]
    add_run(tmp_path, "alpha", [metric("zeta", 0.5, attack=attack) for attack in ("b", "a")], suite_name="two")
    board = parse(page_of(tmp_path)).with_class("board")[1]
    assert [header.text for header in board.find("thead")[0].find("th")][2:] == ["zeta b", "zeta a"]


def test_every_colour_can_be_told_from_the_page_in_both_themes() -> None:
    style = (ROOT / "bench/reporting/page/templates/page.css").read_text()
    pairs = dict(re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}, #[0-9a-f]{6})\)", style))
    for theme in (0, 1):
        colours = {name: pair.split(", ")[theme] for name, pair in pairs.items()}
        for name, least in [("text", 7.0), ("muted", 4.5), ("accent", 4.5), ("warn", 4.5)]:
            assert contrast(colours[name], colours["surface"]) >= least, (theme, name)
            assert contrast(colours[name], colours["page"]) >= least, (theme, name)
        assert contrast(colours["warn"], colours["warn-page"]) >= 4.5
        for place in range(12):
            assert contrast(colours[f"series-{place}"], colours["surface"]) >= 3.0, (theme, place)


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_an_older_version_of_a_suite_is_shown_only_of_models_without_a_newer(tmp_path: Path) -> None:
    for model, version in (("both", 1), ("both", 2), ("old", 1)):
        add_run(tmp_path, model, robustness(0.9, 0.2), suite_version=version)
    boards = parse(page_of(tmp_path)).with_class("board")
    models = [[row.find("th")[0].text for row in board.find("tbody")[0].find("tr")] for board in boards]
    assert sorted(models) == [["both"], ["old"]]


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
