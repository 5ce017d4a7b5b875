"""Bridging's studies at `paper` and the VAE-GAN's recipe against the paper's code."""

from __future__ import annotations

from typing import Any

import pytest

from bench.studies.study import find_study
from bench.training.vae_gan import make_vae_gan_recipe

CODE: dict[str, dict[str, Any]] = {  # github.com/1202kbs/Robustness-and-Interpretability; radii there are of [-1, 1]
    "mnist": {
        "vae_gan": (5e-3, 10, 5e-4, 0.5, 1, 30),
        "net": ("mnist_cnn", 5),
        "manifold": {"at_l2": [1.0, 2.0, 4.0], "at_linf": [0.05, 0.1, 0.2]},
    },
    "cifar10": {
        "vae_gan": (1e-2, 128, 2e-4, 0.0, 5, 150),
        "net": ("cifar_cnn", 20),
        "manifold": {"at_l2": [0.1, 0.4, 1.6], "at_linf": [0.005, 0.01, 0.02]},
        "roar": {"at_l2": [0.08 * i for i in range(1, 21)], "at_linf": [0.002 * i for i in range(1, 21)]},
    },
}


def test_the_vae_gans_have_the_papers_weight_code_rate_beta_updates_and_epochs() -> None:
    tables = {dataset: table["vae_gan"] for dataset, table in CODE.items()} | {
        "fashion_mnist": (5e-4, 10, 5e-4, 0.5, 1, 60)
    }
    for dataset, table in tables.items():
        own = make_vae_gan_recipe(dataset)
        found = (own.reconstruction_weight, own.code_size, own.learning_rate, own.first_beta, own.discriminator_steps)
        assert (*found, own.epochs) == table, dataset
        assert (own.batch_size, own.width, own.decay, own.stop_after) == (100, 1.0, False, None), dataset


@pytest.mark.parametrize("dataset", CODE)
def test_adversarial_training_has_the_papers_net_optimiser_radii_and_both_losses(dataset: str) -> None:
    code = CODE[dataset]
    scale = find_study(f"bridging-{dataset}").scales["paper"]
    shared = {"learning_rate": 1e-3, "batch_size": 100, "optimizer": "adam", "weight_decay": 0.0}
    architecture, epochs = code["net"]
    for net in scale.train:
        if net.recipe == "vae_gan":
            continue
        own = scale.parameters | scale.recipes.get(net.recipe, {}) | net.parameters
        assert {name: own[name] for name in shared} == shared, net.id
        assert (own["architecture"], own["epochs"]) == (architecture, epochs), net.id
        assert net.recipe == "standard" or (own["steps"], own["random_start"]) == (40, False), net.id
    for recipe in ("at_l2", "at_linf"):
        for loss in ("cross_entropy", "margin"):
            nets = [net for net in scale.train if net.recipe == recipe]
            nets = [net for net in nets if net.parameters.get("attack_loss", "cross_entropy") == loss]
            found = [eps for net in nets for eps in net.varied.get("eps", [net.parameters.get("eps")])]
            wanted = [*code["manifold"][recipe], *code.get("roar", {}).get(recipe, [])]
            assert sorted(found) == pytest.approx(sorted(radius / 2 for radius in wanted)), (recipe, loss)
