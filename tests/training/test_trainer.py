from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.nets import build_net
from bench.training import Recipe, make_recipe, train
from bench.training.epochs import CHECKPOINT, Epochs, alone_in
from bench.training.fitting import TrainingRequest
from bench.training.recipe import Schedule
from bench.training.trainer import _learning_rate_factor, _optimizer, split_validation

SMALL = {"widths": [4, 8], "hidden": 16}


def tiny_data(count: int = 720) -> ImageDataset:
    """Two easy classes and two hard ones: bright or dark squares, left or right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator)
    for index, label in enumerate(labels.tolist()):
        images[index, 0, 2:6, 4 * (label % 2) : 4 * (label % 2) + 4] += 60 + 120 * (label // 2)
    return ImageDataset(
        "tiny", "train", images.to(torch.uint8), labels, class_names=("a", "b", "c", "d"), source="made here"
    )


def tiny_net(recipe: Recipe, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_net(
        "small_cnn",
        {"in_channels": 1, "image_size": 8, "num_classes": 4, "mean": [0.3], "std": [0.3], **SMALL,
         "activation": recipe.schedule.activation},
    )  # fmt: skip


def fit(
    name: str,
    folder: Path,
    *,
    epochs: int = 3,
    stop_after: int | None = None,
    seed: int = 0,
    dropout: float = 0.0,
    **overrides: object,
) -> nn.Module:
    recipe = make_recipe(name, "tiny", {"epochs": epochs, "batch_size": 60, "learning_rate": 0.01, **overrides})
    model = nn.Sequential(nn.Dropout(dropout), tiny_net(recipe)) if dropout else tiny_net(recipe)
    folder.mkdir(exist_ok=True)
    data = tiny_data()
    shape = (len(split_validation(len(data))[0]), 1, 8, 8)
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0)) if name.startswith("ir_") else None

    class Stop(Exception):
        pass

    def watch(progress: object) -> None:
        if stop_after is not None and getattr(progress, "row", None) and progress.epoch == stop_after:
            raise Stop

    with contextlib.suppress(Stop):
        train(
            recipe,
            model,
            data,
            seed=seed,
            device=torch.device("cpu"),
            folder=folder,
            target_maps=maps,
            on_progress=watch,
        )
    return model


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "name", ["standard", "at_linf", "at_l2", "ir_gradient", "lga", "trades", "jacobian", "input_gradient", "hessian"]
)
def test_every_method_learns(name: str, tmp_path: Path) -> None:
    overrides: dict[str, object] = {"eps": 0.05, "steps": 3} if name in ("at_linf", "at_l2", "trades") else {}
    if name.startswith("ir_"):
        overrides = {"cosine_weight": 0.1, "magnitude_weight": 0.01}
    model = fit(name, tmp_path, epochs=6, **overrides).eval()
    data = tiny_data()
    accuracy = (model(data.pixels(slice(None))).argmax(1) == data.labels).float().mean()
    assert float(accuracy) > 0.9


@pytest.mark.parametrize(("name", "dropout"), [("lga", 0.0), ("standard", 0.3)])
def test_a_stopped_training_resumes_to_the_same_weights(name: str, dropout: float, tmp_path: Path) -> None:
    whole = fit(name, tmp_path / "whole", epochs=4, dropout=dropout)
    stopped = fit(name, tmp_path / "stopped", epochs=4, stop_after=2, dropout=dropout)
    assert not same_weights(whole, stopped)
    resumed = fit(name, tmp_path / "stopped", epochs=4, dropout=dropout)
    assert same_weights(whole, resumed)
    assert len((tmp_path / "stopped" / "training.csv").read_text().splitlines()) == 5


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    first, second = (fit("standard", tmp_path / name, epochs=1) for name in "ab")
    assert same_weights(first, second)
    assert not same_weights(first, fit("standard", tmp_path / "c", epochs=1, seed=1))


def test_a_net_is_trained_on_float_pixels_as_they_are(tmp_path: Path) -> None:
    data = tiny_data(60)
    floats = dataclasses.replace(data, store=torch.rand(60, 1, 8, 8) / 100)
    net, seen = tiny_net(make_recipe("standard", "tiny")), []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    recipe = make_recipe("standard", "tiny", {"epochs": 1, "batch_size": 60})
    train(recipe, net, floats, seed=0, device=torch.device("cpu"), folder=tmp_path)
    (batch,) = seen
    assert sorted(batch.sum((1, 2, 3)).tolist()) == sorted(
        floats.pixels(split_validation(60)[0]).sum((1, 2, 3)).tolist()
    )


def test_epochs_beyond_the_one_to_stop_after_are_not_published_as_it(tmp_path: Path) -> None:
    def epochs() -> Epochs:
        return Epochs(tmp_path, "net", {}, 3)

    epochs().run(lambda number: {"loss": float(number)}, until=2)
    with pytest.raises(BenchError, match="2 epochs are done already, not 1; start afresh"):
        epochs().run(lambda number: {"loss": float(number)}, until=1)


def test_so_few_images_that_none_can_be_held_out_are_refused() -> None:
    with pytest.raises(BenchError, match="5 training images are too few"):
        split_validation(5)


def test_a_state_of_another_training_is_not_resumed(tmp_path: Path) -> None:
    fit("standard", tmp_path, epochs=3, stop_after=1)
    with pytest.raises(BenchError, match="other parameters; start afresh"):
        fit("standard", tmp_path, epochs=4)


def test_a_training_that_goes_on_under_another_torch_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit("standard", tmp_path, epochs=2, stop_after=1)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    torch.save(state | {"torch": "1.0"}, tmp_path / CHECKPOINT)
    fit("standard", tmp_path, epochs=2)
    assert "the epochs up to 1 are of torch 1.0, the others will be of" in caplog.text


def test_a_second_training_in_the_same_folder_is_refused_and_takes_nothing_away(tmp_path: Path) -> None:
    recipe = make_recipe("standard", "fashion_mnist")
    request = TrainingRequest(recipe, "fashion_mnist", tmp_path, torch.device("cpu"), fresh=True)
    request.prepare_work()
    with alone_in(request.work):
        for start in (request.prepare_work, lambda: fit("standard", request.work, epochs=1)):
            with pytest.raises(BenchError, match=r"another training is at work in .*wait for it"):
                start()
        assert request.work.is_dir()
    fit("standard", request.work, epochs=1)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    fit("standard", tmp_path, epochs=3, stop_after=1)
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:100])
    with pytest.raises(BenchError, match="cannot be read; start afresh"):
        fit("standard", tmp_path, epochs=3)


def test_a_diverging_loss_stops_with_epoch_and_term_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    fit("standard", tmp_path, epochs=3, stop_after=1)
    good = (tmp_path / CHECKPOINT).read_bytes()
    from bench.training import trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_learning_rate_factor", lambda *_: 1e30)
        with pytest.raises(BenchError, match=r"the term 'cross_entropy' is .* in epoch 2.* last good state is in "):
            fit("standard", tmp_path, epochs=3)
        with pytest.raises(BenchError, match=r"in epoch 1; lower its weight or the learning rate\.$"):
            fit("standard", tmp_path / "none", epochs=3)
    assert (tmp_path / CHECKPOINT).read_bytes() == good


def test_target_maps_of_another_shape_are_refused(tmp_path: Path) -> None:
    recipe = make_recipe("ir_gradient", "tiny", {"epochs": 1})
    with pytest.raises(
        BenchError, match=r"target maps have shape \(600, 1, 4, 4\), but the training part of tiny needs"
    ):
        train(
            recipe, tiny_net(recipe), tiny_data(), seed=0, device=torch.device("cpu"), folder=tmp_path,
            target_maps=torch.randn(600, 1, 4, 4),
        )  # fmt: skip


def test_training_with_crops_and_flips_learns_and_resumes(tmp_path: Path) -> None:
    whole = fit("ir_gradient", tmp_path / "whole", epochs=2, augmentation="crop_flip")
    fit("ir_gradient", tmp_path / "stopped", epochs=2, stop_after=1, augmentation="crop_flip")
    assert same_weights(whole, fit("ir_gradient", tmp_path / "stopped", epochs=2, augmentation="crop_flip"))


def test_validation_examples_are_held_out_and_the_same_for_everyone() -> None:
    train_part, validation = split_validation(60_000)
    assert len(train_part) == 55_000 and len(validation) == 5_000
    assert len(set(train_part.tolist()) | set(validation.tolist())) == 60_000
    assert torch.equal(validation, split_validation(60_000)[1])


def test_mixed_precision_learns_as_well_and_keeps_float32_weights(tmp_path: Path) -> None:
    data = tiny_data()
    model = fit("at_linf", tmp_path, epochs=6, eps=0.05, steps=3, precision="bfloat16").eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert float((model(data.pixels(slice(None))).argmax(1) == data.labels).float().mean()) > 0.9
    exact = fit("at_linf", tmp_path / "exact", epochs=6, eps=0.05, steps=3)
    assert not same_weights(model, exact)


@pytest.mark.slow
def test_a_compiled_net_learns(tmp_path: Path) -> None:
    data = tiny_data()
    model = fit("at_linf", tmp_path, epochs=6, eps=0.05, steps=3, compile=True).eval()
    assert float((model(data.pixels(slice(None))).argmax(1) == data.labels).float().mean()) > 0.9


@pytest.mark.parametrize("stop_after", [None, 3])
def test_the_best_validation_epoch_of_the_second_half_is_published_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int | None
) -> None:
    from bench.training import trainer

    scores = [0.99, 0.1, 0.8, 0.3]  # the best of all lies in the first half
    after: list[dict[str, torch.Tensor]] = []

    def pretend(model: nn.Module, *_: object) -> dict[str, float]:
        after.append({key: value.clone() for key, value in model.state_dict().items()})
        return {"validation_accuracy": scores[len(after) - 1]}

    monkeypatch.setattr(trainer, "_validate", pretend)
    if stop_after:
        fit("standard", tmp_path, epochs=4, stop_after=stop_after, checkpoint="best_validation")
    model = fit("standard", tmp_path, epochs=4, checkpoint="best_validation")
    assert all(torch.equal(value, after[2][key]) for key, value in model.state_dict().items())


class Attending(nn.Module):
    """Softmax attention over the rows of 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images[:, 0]
        return self.linear(nn.functional.scaled_dot_product_attention(rows, rows, rows).mean(1))


@pytest.mark.parametrize("name", ["lga", "input_gradient"])
def test_a_net_that_attends_is_trained_by_methods_that_differentiate_twice(name: str, tmp_path: Path) -> None:
    recipe = make_recipe(name, "tiny", {"epochs": 1, "batch_size": 60})
    net = Attending()
    before = net.linear.weight.clone()
    train(recipe, net, tiny_data(120), seed=0, device=torch.device("cpu"), folder=tmp_path)
    assert net.linear.weight.isfinite().all() and not torch.equal(net.linear.weight, before)


def test_multistep_multiplies_the_rate_after_each_milestone_and_cosine_ends_at_zero() -> None:
    steps, per_epoch = 300 * 7, 7
    paper = make_recipe("lga", "cifar10").schedule
    factors = [_learning_rate_factor(step, steps, paper) for step in range(0, steps, per_epoch)]
    assert [factors[epoch] for epoch in (0, 99, 100, 149, 150, 299)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert _learning_rate_factor(100 * per_epoch - 1, steps, paper) == 1.0
    cosine = make_recipe("standard", "tiny").schedule
    assert _learning_rate_factor(99_999, 100_000, cosine) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("name", "coupled"), [("adam", True), ("adamw", False)])
def test_adams_weight_decay_goes_through_its_moments_and_adamws_does_not(name: str, coupled: bool) -> None:
    """One step at a gradient of 0: coupled decay makes a full step of Adam, decoupled decay one of rate times decay."""
    weight = nn.Parameter(torch.tensor([2.0]))
    schedule = Schedule.model_validate({"optimizer": name, "learning_rate": 0.1, "weight_decay": 0.01})
    optimizer = _optimizer(schedule, [weight])
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 - (0.1 if coupled else 0.1 * 0.01 * 2.0), abs=1e-5)
