"""The plain convolutional nets of the papers: SimpleCNN (IR), LeNet (LGA), MNIST_CNN and CIFAR_CNN (Bridging).

All of them normalise inside, take any image size their strides divide, and let the activation be chosen; the papers'
own choice is the default of their recipes, not of the net. IR and Bridging do not normalise by data statistics: pass
mean 0 and std 1 for IR, mean 0.5 and std 0.5 for Bridging, to repeat them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from bench.nets.layers import Normalization, make_activation
from bench.nets.registry import register_net


def _require_divisible(image_size: int, factor: int) -> int:
    if image_size % factor:
        raise ValueError(f"image_size must be a multiple of {factor}")
    return image_size // factor


@register_net
def simple_cnn(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    dropout: float = 0.5,
    activation: str = "relu",
    softplus_beta: float = 3.0,
) -> nn.Module:
    """SimpleCNN of the IR paper (section 4); 3,274,634 parameters for 1x28x28 and 10 classes."""
    side = _require_divisible(image_size, 4)
    return nn.Sequential(
        OrderedDict(
            normalization=Normalization(mean, std),
            conv1=nn.Conv2d(in_channels, 32, 5, padding=2),
            act1=make_activation(activation, softplus_beta),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 5, padding=2),
            act2=make_activation(activation, softplus_beta),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(64 * side * side, 1024),
            act3=make_activation(activation, softplus_beta),
            dropout=nn.Dropout(dropout),
            linear2=nn.Linear(1024, num_classes),
        )
    )


@register_net
def lenet(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    activation: str = "relu",
    softplus_beta: float = 3.0,
) -> nn.Module:
    """LeNet of the LGA code (section 3): four 3x3 convolutions, two linear layers; 1,116,970 parameters on CIFAR-10."""
    return _double_block_net(in_channels, image_size, num_classes, mean, std, 256, activation, softplus_beta)


@register_net
def cifar_cnn(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    activation: str = "relu",
    softplus_beta: float = 3.0,
) -> nn.Module:
    """CIFAR_CNN of the Bridging paper (section 0), Glorot-uniform weights; 2,168,362 parameters on CIFAR-10."""
    net = _double_block_net(in_channels, image_size, num_classes, mean, std, 512, activation, softplus_beta)
    return _glorot(net)


@register_net
def mnist_cnn(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    activation: str = "relu",
    softplus_beta: float = 3.0,
) -> nn.Module:
    """MNIST_CNN of the Bridging paper (section 0), Glorot-uniform weights; 12,908,426 parameters on MNIST."""
    side = _require_divisible(image_size, 2)
    return _glorot(
        nn.Sequential(
            OrderedDict(
                normalization=Normalization(mean, std),
                conv1=nn.Conv2d(in_channels, 32, 5, padding=2),
                act1=make_activation(activation, softplus_beta),
                conv2=nn.Conv2d(32, 64, 5, padding=2),
                act2=make_activation(activation, softplus_beta),
                pool=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                linear1=nn.Linear(64 * side * side, 1024),
                act3=make_activation(activation, softplus_beta),
                linear2=nn.Linear(1024, num_classes),
            )
        )
    )


def _double_block_net(
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hidden: int,
    activation: str,
    softplus_beta: float,
) -> nn.Module:
    """Two blocks of two 3x3 convolutions and a max-pool, then two linear layers."""
    side = _require_divisible(image_size, 4)
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalization=Normalization(mean, std))
    channels = in_channels
    for block, width in enumerate((32, 64), start=1):
        for position in (1, 2):
            layers[f"conv{block}_{position}"] = nn.Conv2d(channels, width, 3, padding=1)
            layers[f"act{block}_{position}"] = make_activation(activation, softplus_beta)
            channels = width
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["linear1"] = nn.Linear(64 * side * side, hidden)
    layers["act3"] = make_activation(activation, softplus_beta)
    layers["linear2"] = nn.Linear(hidden, num_classes)
    return nn.Sequential(layers)


def _glorot(net: nn.Module) -> nn.Module:
    """Glorot-uniform weights and zero biases, as TensorFlow initialises."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net
