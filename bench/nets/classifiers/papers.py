"""The plain convolutional nets of the papers: SimpleCNN (IR), LeNet (LGA), MNIST_CNN and CIFAR_CNN (Bridging).

All of them take any image size that their strides divide. IR and Bridging do not normalise by data statistics: pass
mean 0 and std 1 for IR, mean 0.5 and std 0.5 for Bridging, to repeat them.
"""

from __future__ import annotations

from torch import nn

from bench.nets.layers import glorot
from bench.nets.registry import NetOptions, register_classifier


@register_classifier
def simple_cnn(net: NetOptions, *, dropout: float = 0.5) -> dict[str, nn.Module]:
    """SimpleCNN of the IR paper (section 4); 3,274,634 parameters for 1x28x28 and 10 classes."""
    side = net.side(4)
    return {
        "conv1": nn.Conv2d(net.in_channels, 32, 5, padding=2),
        "act1": net.act(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(32, 64, 5, padding=2),
        "act2": net.act(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(64 * side * side, 1024),
        "act3": net.act(),
        "dropout": nn.Dropout(dropout),
        "linear2": nn.Linear(1024, net.num_classes),
    }


@register_classifier
def lenet(net: NetOptions) -> dict[str, nn.Module]:
    """LeNet of the LGA code (section 3): four 3x3 convolutions, two linear layers; 1,116,970 parameters on CIFAR-10."""
    return _double_blocks(net, 256)


@register_classifier
def cifar_cnn(net: NetOptions) -> dict[str, nn.Module]:
    """CIFAR_CNN of the Bridging paper (section 0), Glorot-uniform weights; 2,168,362 parameters on CIFAR-10."""
    return _glorot(_double_blocks(net, 512))


@register_classifier
def mnist_cnn(net: NetOptions) -> dict[str, nn.Module]:
    """MNIST_CNN of the Bridging paper (section 0), Glorot-uniform weights; 12,908,426 parameters on MNIST."""
    side = net.side(2)
    return _glorot(
        {
            "conv1": nn.Conv2d(net.in_channels, 32, 5, padding=2),
            "act1": net.act(),
            "conv2": nn.Conv2d(32, 64, 5, padding=2),
            "act2": net.act(),
            "pool": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "linear1": nn.Linear(64 * side * side, 1024),
            "act3": net.act(),
            "linear2": nn.Linear(1024, net.num_classes),
        }
    )


def _double_blocks(net: NetOptions, hidden: int) -> dict[str, nn.Module]:
    """Two blocks of two 3x3 convolutions and a max-pool, then two linear layers."""
    side, channels = net.side(4), net.in_channels
    layers: dict[str, nn.Module] = {}
    for block, width in enumerate((32, 64), start=1):
        for position in (1, 2):
            layers[f"conv{block}_{position}"] = nn.Conv2d(channels, width, 3, padding=1)
            layers[f"act{block}_{position}"] = net.act()
            channels = width
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["linear1"] = nn.Linear(64 * side * side, hidden)
    layers["act3"] = net.act()
    layers["linear2"] = nn.Linear(hidden, net.num_classes)
    return layers


def _glorot(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Glorot-uniform weights and zero biases, as TensorFlow initialises."""
    for layer in layers.values():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            glorot(layer)
    return layers
