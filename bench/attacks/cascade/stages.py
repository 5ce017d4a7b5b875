"""What a stage of the cascade is: one attack on what still stands."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, model_validator

from bench.core.bounds import Steps
from bench.core.threat import NORMS, Norm
from bench.core.toml_files import Section

Gate = Literal["target", "example"]


class Stage(Section):
    """One attack of the cascade.

    Attributes:
        steps: gradient steps.
        targets: how many classes are attacked one by one, the nearest first; 0 for the untargeted margin.
        start: radius of the random start over eps; 0 begins at the image.
        widen: the ball is this many times as wide at first and shrinks to eps over the first half of the steps. It
            leads out of the flat surroundings of the image in which nets that were trained in another norm hold attacks
            (at_linf in L2 at 1.5: 9 % in place of 33 %); the idea is that of APGD in L1, Croce and Hein 2021.
        within: only what an attack has brought down to this share of the clean image's margin.
        gate: what must have come that far: the target itself, or any class of the example, which then is attacked
            towards all its targets (nearly broken examples often fall to a class that was not the nearest at first).
        dense: L1 only, the share of pixels that move in the first step. Moving all frees nets that swallow small
            perturbations (trades), a tenth finds more on nets that were trained in L2 (at_l2: 4 points more).
        refine: begin where the best of the earlier stages' attacks on the example ended, not at a random start. With
            small steps this breaks what came to within a few per cent of the boundary, for a small part of what
            attacks towards all classes from random starts cost.
        first: the first step's length over eps; 0 for the norm's own (bench.attacks.sweep.schedules).
        cells: L-inf only, begin at a random corner of the ball, the same in each of so many by so many blocks.
        queries: L-inf only, with `refine`: first so many queries of Square from there; steps go on from the better.
        outside: L1 only, no random start in the ball but few pixels that fool from wherever they lie and so many others
            of their like, which come nearer along the decision boundary (bench.attacks.boundary) for the `steps`. At
            small radii nets trained in L-inf have nothing inside the ball that a gradient could follow.
        norms: the norms that have this stage.
    """

    steps: Steps
    targets: int = Field(default=0, ge=0, lt=1 << 31)
    start: float = Field(default=1.0, ge=0, le=1)
    widen: float = Field(default=1.0, ge=1, le=100)
    within: float = Field(default=1.0, gt=0, le=1)
    gate: Gate = "target"
    dense: float = Field(default=1.0, gt=0, le=1)
    refine: bool = Field(default=False, validation_alias=AliasChoices("refine", "polish"))
    first: float = Field(default=0.0, ge=0)
    cells: int = Field(default=0, ge=0, le=1000)
    queries: int = Field(default=0, ge=0, le=100_000)
    outside: int = Field(default=0, ge=0, le=1000)
    norms: tuple[Norm, ...] = Field(default=NORMS, strict=False)

    @model_validator(mode="after")
    def _fits_the_norm(self) -> Stage:
        if ((self.cells or self.queries) and self.norms != ("linf",)) or (self.queries and not self.refine):
            raise ValueError('cells and queries take norms = ["linf"], and queries refine = true')
        if self.outside and self.norms != ("l1",):
            raise ValueError('outside takes norms = ["l1"]')
        if self.cells and (self.refine or self.start == 0.0):
            raise ValueError("cells are where a random start begins; leave them out with refine = true or start = 0")
        return self


STAGES = (Stage(steps=10), Stage(steps=30, targets=3, widen=3.0))
