from __future__ import annotations

from bench.reporting.figures import Spread, manifold_figure, spreads_figure


def test_each_panel_has_its_own_nets_none_in_the_colour_of_another() -> None:
    clean = [1.0, 2.0, 3.0, 4.0, 2.5]
    far = [value + 1 for value in clean]
    panels = {
        norm: dict.fromkeys(("standard", *(f"at_{norm}_{how}" for how in ("weak", "mid", "strong"))), (clean, far))
        for norm in ("l2", "linf")
    }
    figure = manifold_figure(panels)
    assert [axes.get_title() for axes in figure.axes] == ["l2", "linf"]
    for axes, names in zip(figure.axes, panels.values(), strict=True):
        lines = axes.get_lines()
        assert [line.get_label() for line in lines] == [
            "clean (n=5)",
            *(f"adversarial, {name} (n=5)" for name in names),
        ]
        assert len({line.get_color() for line in lines}) == len(lines)


def test_points_of_more_curves_than_there_are_colours_are_told_apart() -> None:
    curves = {str(number): [Spread([1.0], [float(number)])] for number in range(12)}
    (axes,) = spreads_figure({"height": curves}, "width", [], []).axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.get_lines() if line.get_marker() in "os^"}
    assert len(looks) == 12
