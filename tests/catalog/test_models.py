from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import bench
from bench.api import list_models as list_names
from bench.catalog.cards import read_card, write_card
from bench.catalog.locations import shipped
from bench.catalog.models import broken_cards, list_models, load_model, resolve_models
from bench.core.errors import BenchError
from bench.data import ImageDataset
from tests.conftest import Bench, ModelCopy

REQUIRED = {"at_l2", "at_linf", "ir_gradient", "ir_smoothgrad", "lga", "standard"}
STD = "normalization.std"
SHIPPED = [path.parent.name for path in sorted((shipped("models") / "fashion_mnist").glob("*/card.toml"))]


def test_the_shipped_models_are_there_small_and_trained_on_held_in_data() -> None:
    entries = {entry.card.id: entry for entry in list_models("fashion_mnist")}
    assert REQUIRED <= set(SHIPPED) <= set(entries)
    for name in SHIPPED:
        entry = entries[name]
        assert entry.weights.path.stat().st_size <= 2_000_000
        assert entry.card.weights.parameters <= 450_000
        assert entry.card.training is not None
        assert (entry.card.training.training_examples, entry.card.training.validation_examples) == (55_000, 5_000)
        epochs = len((entry.folder / "training.csv").read_text().splitlines()) - 1
        assert epochs == entry.card.training.schedule["epochs"]


OFTEN = ("standard", "at_l2", "at_linf", "ir_smoothgrad", "lga", "trades")
"""The others take half a minute: `pytest -m slow tests/catalog`. `bench check` in .ci/run looks at them too."""


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED]
)
def test_a_cards_test_accuracy_is_what_its_weights_reach(name: str, fashion_test: ImageDataset) -> None:
    entry = resolve_models([name])[0]
    model = load_model(entry)
    with torch.no_grad():
        right = sum(
            int(
                (
                    model(fashion_test.pixels(slice(begin, begin + 1000))).argmax(1)
                    == fashion_test.labels[begin : begin + 1000]
                ).sum()
            )
            for begin in range(0, 10_000, 1000)
        )
    assert right / 10_000 == pytest.approx(entry.card.accuracy.test, abs=3e-4)


def test_loaded_models_are_ready_to_be_attacked() -> None:
    model = load_model(resolve_models(["standard"])[0])
    assert not model.training
    assert all(not parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())


def test_names_wildcards_full_names_and_folders_resolve(model_copy: ModelCopy) -> None:
    assert [entry.card.id for entry in resolve_models(["at_l2", "at_lin*"])] == ["at_l2", "at_linf"]
    assert resolve_models(["fashion_mnist/lga"])[0].card.id == "lga"
    assert resolve_models([str(model_copy.folder)])[0].folder == model_copy.folder
    assert "copy" in {entry.card.id for entry in resolve_models(["all"])}


def test_models_are_listed_in_the_order_in_which_people_count(model_copy: ModelCopy) -> None:
    for number in (2, 10):
        folder = shutil.copytree(model_copy.folder, model_copy.folder.with_name(f"copy{number}"))
        write_card(folder, read_card(folder).model_copy(update={"id": folder.name}))
    assert bench.list_models("copy*") == [f"fashion_mnist/copy{number}" for number in ("", 2, 10)]


def test_patterns_choose_and_leave_out_models_by_short_and_full_names() -> None:
    assert bench.list_models("at_*", exclude=["*_seed?", "cifar10/*"], registry=None) == [
        "fashion_mnist/at_l2", "fashion_mnist/at_linf", "mnist/at_l2", "mnist/at_linf",
    ]  # fmt: skip
    assert bench.list_models(["mnist/at_l2", "standard"], dataset="mnist", exclude="standard") == ["mnist/at_l2"]
    assert bench.list_models() == bench.list_models("all") == bench.list_models("*")


@pytest.mark.parametrize("wrong", [{"pattern": "at_lnf"}, {"exclude": "at_lnf*"}])
def test_a_pattern_that_matches_no_model_suggests_the_nearest(wrong: dict[str, str]) -> None:
    with pytest.raises(BenchError, match="did you mean at_linf"):
        bench.list_models(**wrong)


def test_no_models_of_a_data_set_that_is_none_are_no_empty_list(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchError, match="unknown data set 'minst'; did you mean mnist"):
        list_names(dataset="minst")
    for asked in (("models", "--dataset", "minst"), ("recipes", "show", "at_linf", "--dataset", "minst")):
        assert "did you mean mnist" in bench.refused(*asked)
    (tmp_path / "minst.npz").touch()
    assert bench("recipes", "show", "at_linf", "--dataset", "minst", "--data-dir", tmp_path)[0] == 0
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path))
    assert list_names(dataset="minst") == [] and bench("models", "--dataset", "minst")[0] == 0


def test_a_mistyped_folder_is_said_to_be_none(model_copy: ModelCopy) -> None:
    with pytest.raises(BenchError, match=r"there is no folder .*/cpoy; models in .*: copy\."):
        resolve_models([str(model_copy.folder.with_name("cpoy"))])


def test_an_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean ir_smoothgrad"):
        resolve_models(["ir_smothgrad"])


@pytest.mark.parametrize(
    ("name", "said"), [("lga_seed1", "unknown fashion_mnist model"), ("mnist/lga", "unknown model")]
)
def test_a_wheel_says_where_the_models_are_that_it_lacks(
    model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    package = tmp_path / "site" / "bench"
    shutil.copytree(model_copy.folder, package / "_shipped" / "models" / "fashion_mnist" / "copy")
    monkeypatch.setattr(bench, "__file__", str(package / "__init__.py"))
    monkeypatch.delenv("BENCH_REGISTRY")
    assert resolve_models(["copy"])[0].folder.is_relative_to(package)
    with pytest.raises(
        BenchError, match=f"{said} '{name}'.*the others are in the folder `models` of RIBench's repository"
    ):
        resolve_models([name])


def test_a_data_set_without_models_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    (standard,) = resolve_models(["fashion_mnist/standard"])
    monkeypatch.setattr("bench.catalog.models.registered", lambda _: {"fashion_mnist/standard": standard})
    with pytest.raises(BenchError, match="no model of cifar10; train one"):
        resolve_models(["at_l2"], "cifar10")


def test_what_a_killed_process_left_of_a_model_hides_no_other(model_copy: ModelCopy) -> None:
    shutil.copytree(model_copy.folder, model_copy.folder.with_name(".other.training"))
    assert "fashion_mnist/copy" in {entry.card.name for entry in list_models()}


def test_a_full_name_of_another_data_set_is_refused(model_copy: ModelCopy) -> None:
    with pytest.raises(BenchError, match="not for mnist"):
        resolve_models(["fashion_mnist/standard"], "mnist")


def test_weights_that_do_not_match_their_card_are_refused(model_copy: ModelCopy) -> None:
    content = bytearray(model_copy.weights.read_bytes())
    content[-1] ^= 1
    model_copy.weights.write_bytes(bytes(content))
    with pytest.raises(BenchError, match="do not match their card"):
        load_model(resolve_models(["copy"])[0])


def test_truncated_weights_are_refused_even_when_the_card_agrees(model_copy: ModelCopy) -> None:
    model_copy.weights.write_bytes(model_copy.weights.read_bytes()[:-100])
    model_copy.adopt_weights()
    with pytest.raises(BenchError, match="not a readable safetensors file"):
        load_model(resolve_models(["copy"])[0])


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["pickle", "torch.save"])
def test_no_code_in_a_weights_file_runs(model_copy: ModelCopy, tmp_path: Path, how: str) -> None:
    harm = tmp_path / "harm"
    with model_copy.weights.open("wb") as stream:
        if how == "pickle":
            pickle.dump(Bomb(harm), stream)
        else:
            torch.save({"weight": Bomb(harm)}, stream)
    model_copy.adopt_weights()
    with pytest.raises(BenchError, match="not a readable safetensors file"):
        load_model(resolve_models(["copy"])[0])
    assert not harm.exists()


def test_weights_of_another_net_are_refused(model_copy: ModelCopy) -> None:
    state = load_file(model_copy.weights)
    state["linear2.weight"] = torch.zeros(7, 128)
    save_file(state, model_copy.weights)
    model_copy.adopt_weights()
    with pytest.raises(BenchError, match="do not fit architecture"):
        load_model(resolve_models(["copy"])[0])


def test_a_card_with_an_unknown_key_is_refused(model_copy: ModelCopy) -> None:
    card = model_copy.folder / "card.toml"
    card.write_text("nonsense = 1\n" + card.read_text())
    with pytest.raises(BenchError, match="nonsense: unknown key"):
        read_card(model_copy.folder)


def test_a_card_must_agree_with_its_folder(model_copy: ModelCopy) -> None:
    model_copy.rewrite_card(id="other")
    with pytest.raises(BenchError, match="folder and card must agree"):
        list_models(patterns=["copy"])


def test_a_broken_card_matters_only_where_its_model_is_asked_for(model_copy: ModelCopy) -> None:
    (model_copy.folder / "card.toml").write_text("")
    assert resolve_models(["standard"])[0].card.name == "fashion_mnist/standard"
    assert "copy" not in {entry.card.id for entry in list_models(exclude=["copy"], patterns=["fashion_mnist/*"])}
    assert len(broken_cards()) == 1
    for pattern in ("copy", "fashion_mnist/copy", "cop*", "all"):
        with pytest.raises(BenchError, match=r"copy/card\.toml: .* Mend this card, or move its folder away\."):
            resolve_models([pattern])


def test_a_card_in_place_of_its_folder_says_so(model_copy: ModelCopy) -> None:
    with pytest.raises(BenchError, match=r"card\.toml is a card; name the folder that it lies in\."):
        resolve_models([str(model_copy.folder / "card.toml")])


def test_a_missing_weights_file_is_named(model_copy: ModelCopy) -> None:
    model_copy.weights.unlink()
    with pytest.raises(BenchError, match=r"cannot read the weights .*weights\.safetensors"):
        load_model(resolve_models(["copy"])[0])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -1.0])
def test_a_normalisation_that_is_none_is_refused_in_the_card_and_in_the_weights(
    model_copy: ModelCopy, value: float
) -> None:
    state = load_file(model_copy.weights)
    save_file({**state, STD: torch.full_like(state[STD], value)}, model_copy.weights)
    model_copy.adopt_weights()
    with pytest.raises(BenchError, match="normalisation that is none"):
        load_model(resolve_models(["copy"])[0])
    parameters = read_card(model_copy.folder).architecture_parameters
    model_copy.rewrite_card(architecture_parameters={**parameters, "std": [value]})
    with pytest.raises(BenchError, match="std numbers above 0"):
        load_model(resolve_models(["copy"])[0])


def test_a_folder_of_the_working_directory_does_not_hide_a_model_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "at_l2").mkdir()
    (tmp_path / "results").mkdir()
    assert [entry.card.name for entry in resolve_models(["at_l2"])] == ["fashion_mnist/at_l2"]
    for folder in ("results", "./at_l2"):
        with pytest.raises(BenchError, match=r"has no card\.toml"):
            resolve_models([folder])


def test_a_name_of_the_registry_stands_before_a_folder_with_a_card_and_a_path_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for here in ("standard", "fashion_mnist/standard", "mine"):
        shutil.copytree(shipped("models") / "fashion_mnist" / "at_l2", here)
    for name in ("standard", "fashion_mnist/standard"):
        assert resolve_models([name])[0].card.name == "fashion_mnist/standard"
        assert resolve_models([f"./{name}"])[0].card.name == "fashion_mnist/at_l2"
    assert resolve_models(["mine"], "fashion_mnist")[0].folder == Path("mine")


def test_a_short_name_of_another_data_set_is_told_in_full(model_copy: ModelCopy) -> None:
    moved = model_copy.folder.parents[1] / "cifar10" / "student"
    shutil.copytree(model_copy.folder, moved)
    write_card(moved, read_card(moved).model_copy(update={"id": "student", "dataset": "cifar10"}))
    with pytest.raises(BenchError, match="unknown fashion_mnist model 'student'; did you mean cifar10/student"):
        resolve_models(["student"])
