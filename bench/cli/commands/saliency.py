"""`bench saliency`: one picture of images, their maps, and both again under an attack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.option_groups import OwnModel, with_groups
from bench.cli.options import (
    DataDir,
    Device,
    Download,
    ModelDataset,
    Models,
    Programs,
    Registry,
    parse_positions,
    parse_radius,
    seed_option,
)
from bench.cli.output.rendering import messages, output

if TYPE_CHECKING:
    from bench.reporting.saliency.rows import PanelRow

DEFAULT_METHODS = ["gradient", "smoothgrad", "integrated_gradients"]
DEFAULT_ATTACK = "top_k"
"""Of the six attacks it leaves the least cosine and the least top-k intersection, on `standard`, `lga` and `at_linf`
alike (32 images, 8/255, the gradient's map)."""

Methods = Annotated[
    list[str],
    typer.Option(
        "--method",
        help="Attribution method: gradient, input_x_gradient, integrated_gradients, smoothgrad, guided_backprop, "
        "deconvolution, lrp_epsilon, lrp_epsilon_plus, lrp_alpha2_beta1, deeplift, grad_cam, wildcard or `all`. "
        "Repeatable; the attack aims at the first that has a derivative.",
    ),
]
MapAttack = Annotated[
    str,
    typer.Option(
        "--attack", help="top_k, mass_centre, target_region, frame, target_image, or random_sign as a control."
    ),
]


@with_groups
def saliency(
    model: Models,
    image: Annotated[
        list[str],
        typer.Option("--image", help="Positions of images in the test split, e.g. 0,1,2. Repeatable."),
    ] = ["0"],  # noqa: B006  (typer copies it)
    method: Methods = DEFAULT_METHODS,
    attack: MapAttack = DEFAULT_ATTACK,
    eps: Annotated[str, typer.Option("--eps", help="L-inf radius of the attack, pixels in [0, 1].")] = "8/255",
    output_file: Annotated[
        Path, typer.Option("--output", help="The picture to write, .png, .svg or .pdf; its folder must be there.")
    ] = Path("saliency.png"),
    dataset: ModelDataset = None,
    seed: Annotated[int, seed_option("Keys noise and random starts, together with the image.")] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
    registry: Registry = None,
    program: Programs = None,
    *,
    own: OwnModel,
) -> None:
    """Draw images, their attribution maps, and both again under an attack on the maps that keeps the prediction."""
    from bench.reporting.saliency.panel import make_panel

    with messages().status("Drawing the maps"):
        outcome = make_panel(
            model, parse_positions(image), method, attack, eps=parse_radius(eps), output=output_file, dataset=dataset,
            seed=seed, device=device, data_dir=data_dir, download=download, registry=registry, programs=program or (),
            source=own.source_options(download=download, data_dir=data_dir),
        )  # fmt: skip
    for remark in outcome.remarks:
        messages().print(f"warning {remark}", style="yellow")
    for row in outcome.rows:
        _print_row(row, outcome.attacked_method)
    output().print(f"picture: {output_file}", soft_wrap=True)


def _print_row(row: PanelRow, attacked_method: str | None) -> None:
    """The numbers of one row of the picture."""
    from bench.reporting.saliency.figure import outcome_text

    title = f"{row.model}, image {row.example_id}: label {row.truth}, predicted {row.before}"
    output().print(title, style="bold", soft_wrap=True)
    output().print(f"  attacked: {outcome_text(row)}; L-inf distance {row.distance:.4f}", soft_wrap=True)
    for pair in row.maps:
        numbers = ", ".join(f"{name.replace('_', '-')} {value:.3f}" for name, value in pair.similarities.items())
        aimed = " (attacked)" if pair.method == attacked_method else ""
        output().print(f"  {pair.method}{aimed}: {numbers}", soft_wrap=True)
