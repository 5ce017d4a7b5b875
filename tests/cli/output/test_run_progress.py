from __future__ import annotations

import io

from rich.console import Console

from bench.cli.output.run_progress import RunProgress
from bench.studies.scales import TrainedModel
from bench.training.epochs import Progress


def test_target_maps_of_a_training_have_a_bar_of_their_own_until_its_epochs_begin() -> None:
    shown = RunProgress(Console(file=io.StringIO()))
    tell = shown.watch_training(TrainedModel(id="net", recipe="ir_smoothgrad"), "[1/2] ")

    def bars() -> dict[str, float]:
        return {task.description: task.percentage for task in shown.tasks if task.visible}

    assert bars() == {"[1/2] train net": 0}
    tell(Progress(0, 0, 5, 20))
    assert bars() == {"[1/2] target maps of net": 25, "[1/2] train net": 0}
    tell(Progress(1, 4, 5, 10))
    assert bars() == {"[1/2] train net": 37.5}
