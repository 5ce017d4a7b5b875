"""The page in a real browser: `pytest -m slow tests/reporting/page/test_browser.py` (needs Chromium and playwright)."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.page.pages import EVIL

pytestmark = pytest.mark.slow
WIDTHS = (390, 1280)


@pytest.mark.parametrize("which", ["made up", "shipped"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_plot_is_drawn_and_nothing_sticks_out(visit: Any, which: str, width: int) -> None:
    page = visit(which, width).page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # folded plots, and those that begin with a few models
    page.evaluate(
        "for (const one of document.querySelectorAll('details.plots')) {one.open = true; one.classList.add('everything');}"
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    plots = page.evaluate(
        """[...document.querySelectorAll('.panel > svg')].map(svg => {
            const frame = svg.getBoundingClientRect();
            const points = [...svg.querySelectorAll('.point')].map(point => point.getBoundingClientRect());
            return {
                wide: frame.width > 200 && frame.height > 130,
                inside: points.every(box => box.width > 2 && box.x >= frame.x - 6 && box.right <= frame.right + 6
                                            && box.y >= frame.y - 6 && box.bottom <= frame.bottom + 6),
                // the made-up models have one card, and so one place
                spread: points.length < 4
                    || Math.max(...points.map(box => box.x)) - Math.min(...points.map(box => box.x)) > 40,
                looks: new Set([...svg.querySelectorAll('.point')].map(
                    point => getComputedStyle(point).fill + point.getAttribute('href'))).size,
                series: svg.querySelectorAll('.series').length,
            };
        })"""
    )
    assert len(plots) >= 6
    for plot in plots:
        assert plot["wide"] and plot["inside"] and plot["spread"]
        assert plot["looks"] == plot["series"]


def test_the_first_table_of_the_shipped_page_is_seen_whole(visit: Any) -> None:
    box = visit("shipped", 1100).page.locator(".scroll:has(.board-table)").first
    assert box.evaluate("one => one.clientWidth > 0 && one.scrollWidth <= one.clientWidth + 1")


def test_headers_sort_by_mouse_and_by_keyboard(visit: Any) -> None:
    one = visit()
    header = one.page.locator("details.board[open] th", has_text="clean")
    assert header.get_attribute("aria-sort") == "none"
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert one.visible_models() == ["fashion_mnist/alpha", "fashion_mnist/beta", f"fashion_mnist/{EVIL}"]
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert one.visible_models() == [f"fashion_mnist/{EVIL}", "fashion_mnist/beta", "fashion_mnist/alpha"]
    others = one.page.locator(
        "details.board[open] th[aria-sort=ascending], details.board[open] th[aria-sort=descending]"
    )
    assert others.count() == 1
    assert "ascending" in one.page.locator("#announce").text_content()
    one.page.locator("details.board[open] th", has_text="model").locator("button").first.click()
    named = [name for name in one.visible_models() if EVIL not in name]
    assert named == ["fashion_mnist/alpha", "fashion_mnist/beta"]


def test_the_filter_holds_for_tables_plots_and_sections(visit: Any) -> None:
    one = visit()
    one.page.fill("#filter-text", "BET")
    assert set(one.visible_models()) == {"fashion_mnist/beta"} and len(one.visible_models()) > 1  # tables open too
    assert "models=BET" in one.page.url
    assert one.page.locator("#filter-status").text_content() == "1 of 3 models"
    shown = "elements => elements.filter(one => getComputedStyle(one).display !== 'none').map(one => one.dataset.model)"
    for selector in (".series[data-model]", "details.model", ".legend li[data-model]", ".findings tr[data-model]"):
        assert set(one.page.eval_on_selector_all(selector, shown)) == {"fashion_mnist/beta"}, selector
    one.page.locator("#filter button[type=reset]").click()
    one.page.locator("#filter-status", has_text="3 of 3").wait_for()
    assert len(set(one.visible_models())) == 3 and "models" not in one.page.url
    one.page.select_option("#filter-method", "at_linf")
    assert set(one.visible_models()) == {"fashion_mnist/beta"}
    one.page.fill("#filter-text", "nothing like it")
    assert one.visible_models() == []


def test_columns_can_be_chosen(visit: Any) -> None:
    page = visit("shipped").page
    headers = "heads => heads.filter(head => head.offsetParent).map(head => head.textContent.trim())"
    overview = page.eval_on_selector_all("details.board[open] .board-table th[scope=col]", headers)
    page.locator("details.board[open] [data-views]").select_option("L2")
    chosen = page.eval_on_selector_all("details.board[open] .board-table th[scope=col]", headers)
    norms = [{name.split()[0] for name in names if name.startswith("L")} for names in (overview, chosen)]
    assert norms == [{"L-inf", "L2", "L1"}, {"L2"}]
    cells = page.eval_on_selector(
        "details.board[open] .board-table tbody tr", "row => [...row.cells].filter(cell => cell.offsetParent).length"
    )
    assert cells == len(chosen)


def test_points_tell_their_values_to_the_pointer_and_to_the_keyboard(visit: Any) -> None:
    page = visit().page
    panel = page.locator(".panel", has_text="Robust accuracy in L-inf").locator("> svg")
    panel.scroll_into_view_if_needed()
    point = panel.locator(".series[data-model='fashion_mnist/alpha'] .point").nth(2).bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    assert page.locator("#tip").text_content() == "alpha, L-inf 0.05: 60.0 % [58.0, 62.0]"
    page.mouse.move(1, 1)
    assert page.locator("#tip").is_hidden()
    panel.focus()
    panel.press("ArrowRight")
    first = page.locator("#announce").text_content()
    panel.press("ArrowRight")
    second = page.locator("#announce").text_content()
    panel.press("ArrowDown")
    third = page.locator("#announce").text_content()
    assert ", clean: " in first and ", L-inf 0.02: " in second and ", L-inf 0.02: " in third
    assert first.split(",")[0] == second.split(",")[0] != third.split(",")[0]
    panel.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_a_legend_entry_brings_out_its_model_everywhere(visit: Any) -> None:
    page = visit().page
    page.locator("#curves .entry", has_text="beta").click()
    page.mouse.move(1, 1)
    pressed = page.eval_on_selector_all(".entry[aria-pressed=true]", "found => found.map(one => one.dataset.key)")
    assert pressed and set(pressed) == {"fashion_mnist/beta"}
    page.wait_for_timeout(250)
    opacity = "found => [...new Set(found.map(one => getComputedStyle(one).opacity))]"
    for model, expected in (("beta", ["1"]), ("alpha", ["0.12"])):
        assert page.eval_on_selector_all(f"#curves .series[data-model='fashion_mnist/{model}']", opacity) == expected


def test_both_themes_follow_the_system_and_the_button(visit: Any) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme).page
        look = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('.series path')).stroke]"
        colours[scheme] = page.evaluate(look)
        for label, wanted in (("auto", scheme), ("light", "light"), ("dark", "dark")):
            assert page.locator("#theme").text_content() == f"Theme: {label}"
            colours.setdefault(wanted, page.evaluate(look))
            assert page.evaluate(look) == colours[wanted]
            page.locator("#theme").click()
    assert colours["light"][0] != colours["dark"][0] and colours["light"][1] != colours["dark"][1]


def test_a_link_opens_what_it_leads_to(visit: Any) -> None:
    page = visit("shipped").page
    page.locator("details.board[open] tbody a").first.click()
    opened = page.locator("details.model[open]")
    assert opened.count() == 1
    assert opened.evaluate("one => one.getBoundingClientRect().top") < 900
    assert opened.locator(".command code").first.is_visible()


def test_tab_reaches_the_controls_and_shows_where_it_is(visit: Any) -> None:
    page = visit().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the leaderboard"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.getAttribute('class') || document.activeElement.tagName"
            )
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"theme", "filter-text", "filter-method", "entry", "scroll"} <= seen


def test_without_scripts_the_first_table_is_still_there(visit: Any) -> None:
    page = visit("shipped", java_script_enabled=False).page
    hidden = page.locator("details.board[open] td").first
    assert hidden.is_visible()
    assert page.locator("details.board[open] td.off").first.is_visible()
    assert "bench report --plain" in page.locator("noscript").first.inner_text()
    assert page.locator("#filter").is_hidden() and page.locator("#theme").count() == 0


def test_on_paper_tables_are_unfolded_and_the_page_is_light(visit: Any, tmp_path: Path) -> None:
    page = visit(color_scheme="dark").page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.board:not([open])").count() == 0  # as far as they are few
    assert page.locator("details.study[open], details.model[open]").count() == 0  # would be dozens of pages
    row = page.locator("details.board tbody tr").first
    tops = "row => new Set([...row.cells].filter(cell => cell.offsetParent).map(cell => cell.getBoundingClientRect().top)).size"
    assert row.evaluate(tops) == 1
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.board[open]").count() == 1
    assert (tmp_path / "page.pdf").stat().st_size > 20_000


def test_the_shipped_page_prints_on_less_than_20_sheets(visit: Any) -> None:
    printed = visit("shipped").page.pdf(format="A4")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) < 20


@pytest.mark.parametrize(("width", "most"), [(1280, 21_400), (390, 39_800)])
def test_the_shipped_page_is_a_third_as_long_as_it_was(visit: Any, width: int, most: int) -> None:
    assert visit("shipped", width).page.evaluate("document.documentElement.scrollHeight") < most


def test_a_table_is_downloaded_as_csv_with_its_intervals(visit: Any, tmp_path: Path) -> None:
    page = visit().page
    board = page.locator("details.board[open]").first
    with page.expect_download() as download:
        board.locator("button.csv").click()
    download.value.save_as(tmp_path / "table.csv")
    assert download.value.suggested_filename == "cross_norm.csv"
    rows = {row["model"]: row for row in csv.DictReader((tmp_path / "table.csv").open())}
    assert set(rows) == {"alpha", "beta", EVIL}
    assert [rows["alpha"][f"clean{end}"] for end in ("", " ci_low", " ci_high")] == ["0.9", "0.88", "0.92"]
    assert rows["beta"]["gradient masking"] == "masked"
    page.locator(".panel details.numbers summary").first.click()
    with page.expect_download() as download:
        page.locator(".panel button.csv").first.click()
    assert download.value.suggested_filename.endswith(".csv")


def test_a_downloaded_table_has_no_formula_and_numbers_as_they_are(visit: Any, tmp_path: Path) -> None:
    texts = ["-1+cmd|' /C calc'!A0", "=1+1", "-5", "-.5", "+1e-3", "-"]
    board = visit().page.locator("details.board[open]").first
    board.locator("tbody tr").first.evaluate(
        "(row, texts) => { for (const [at, text] of texts.entries()) row.cells[at].dataset.value = text; }", texts
    )
    with board.page.expect_download() as download:
        board.locator("button.csv").click()
    download.value.save_as(tmp_path / "table.csv")
    (_, row, *_) = csv.reader((tmp_path / "table.csv").open())
    assert [one for one in row if one.lstrip("'") in texts] == [f"'{one}" for one in texts[:2]] + texts[2:5] + ["'-"]


def test_without_scripts_the_title_has_its_whole_width(visit: Any) -> None:
    page = visit("shipped", java_script_enabled=False).page
    assert page.locator(".title").evaluate("one => one.getBoundingClientRect().width") > 1000


def test_a_browser_that_cannot_unpack_says_so(browser: Any, files: dict[str, Path]) -> None:
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(files["made up"].as_uri())
    page.wait_for_selector("html[data-ready]")
    notes = page.locator("main .caution", has_text="cannot unpack")
    assert notes.count() >= 6 and notes.first.is_visible()
    assert page.locator("details.board[open] tbody tr").count() == 3
    page.close()


def test_the_shipped_leaderboard_makes_a_page_of_less_than_two_and_a_half_kilobytes_a_run(
    files: dict[str, Path],
) -> None:
    runs = len(list((Path(__file__).parents[3] / "leaderboard" / "runs").iterdir()))
    assert files["shipped"].stat().st_size < 2_500 * runs  # without saliency panels, which are as large as their images
