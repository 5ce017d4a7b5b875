"""Types of the numbers in files from outside: how large each may be, so that a run ends and its rows can be read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from bench.core.threat import NORM_LABELS, Norm, as_number

LARGEST_RADIUS: dict[Norm, float] = {"linf": 1.0, "l2": 1e4, "l1": 1e8}
"""No two images in [0, 1] lie farther apart, up to 4096x4096 in colour."""

Precision = Literal["float32", "tf32", "bfloat16", "float32-compiled", "tf32-compiled", "bfloat16-compiled"]
"""In which a net computes: see bench.core.precision."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)[:3]
Version = Annotated[int, Field(ge=1, lt=1 << 31)]
Count = Annotated[int, Field(gt=0, lt=1 << 31)]
"""Of images and of epochs."""
Steps = Annotated[int, Field(gt=0, le=100_000)]
"""Of an attack; also samples and draws."""
Queries = Annotated[int, Field(gt=0, le=10_000_000)]
PixelRadius = Annotated[float, Field(gt=0, le=1), BeforeValidator(as_number)]
"""In L-inf; a file may say "8/255"."""
_Radius = Annotated[float, Field(gt=0), BeforeValidator(as_number)]


def require_radius(radius: float, norm: Norm) -> None:
    """Raise ValueError for a radius beyond `LARGEST_RADIUS`."""
    if radius > LARGEST_RADIUS[norm]:
        raise ValueError(
            f"a radius of {radius:g} in {NORM_LABELS[norm]} is larger than any image of pixels in [0, 1]; "
            f"at most {LARGEST_RADIUS[norm]:g}{', use e.g. 8/255' if norm == 'linf' else ''}"
        )


def _inside_the_cube(radii: dict[Norm, Any]) -> dict[Norm, Any]:
    for norm, found in radii.items():
        for radius in found if isinstance(found, list) else [found]:
            require_radius(radius, norm)
    return radii


def _inside_its_norm(radius: float, info: ValidationInfo) -> float:
    if "norm" in info.data:  # it is not where it is wrong itself
        require_radius(radius, info.data["norm"])
    return radius


RadiusOfNorm = Annotated[float, Field(gt=0), AfterValidator(_inside_its_norm)]
"""In the norm that the field `norm` before it names."""


OneRadius = Annotated[dict[Norm, _Radius], AfterValidator(_inside_the_cube)]
"""One radius for each norm, in pixels of [0, 1]."""
SeveralRadii = Annotated[
    dict[Norm, Annotated[list[_Radius], Field(min_length=1, max_length=100)]], AfterValidator(_inside_the_cube)
]
"""Up to 100 radii for each norm, in pixels of [0, 1]."""
PixelRadii = Annotated[list[PixelRadius], Field(min_length=1, max_length=100)]
"""Up to 100 radii in L-inf."""
