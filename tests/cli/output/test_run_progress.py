from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.cli.output.progress import plain_line
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
    (training,) = (task for task in shown.tasks if task.total == 1)
    assert not training.started, "maps take no time of the epochs"
    tell(Progress(1, 4, 5, 10))
    assert training.started
    assert bars() == {"[1/2] train net": 37.5}


@pytest.mark.parametrize("resumed", [0, 4])
def test_a_resumed_trainings_time_left_follows_from_what_was_done_here(resumed: int) -> None:
    shown = RunProgress(Console(file=io.StringIO()))
    tell = shown.watch_training(TrainedModel(id="net", recipe="ir_smoothgrad"), "")
    tell(Progress(resumed, 10, 0, 10))
    tell(Progress(resumed + 1, 10, 0, 10))
    (task,) = (one for one in shown.tasks if one.visible)
    task.start_time = task.get_time() - 60
    assert plain_line(task).endswith(f"0:01:00 so far, about 0:0{9 - resumed}:00 left")
