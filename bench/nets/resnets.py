"""Residual nets: ResNet18 for small and for ImageNet-sized images (LGA), Wide ResNets (IR)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from bench.nets.layers import Normalization, make_activation
from bench.nets.registry import register_net

_SMALL_IMAGE = 64
"""Below this side, ResNet18 has the 3x3 stem without max-pooling that is usual on CIFAR."""


@register_net
def resnet18(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    activation: str = "relu",
    softplus_beta: float = 3.0,
) -> nn.Module:
    """torchvision's ResNet18; 3x3 stride-1 stem and no max-pool for images below 64x64 (11,173,962 parameters)."""
    # here, since it imports torch's compiler, which would double the time that every command takes to start
    from torchvision.models import resnet18 as torchvision_resnet18

    net = torchvision_resnet18(weights=None, num_classes=num_classes)
    if image_size < _SMALL_IMAGE:
        net.conv1 = nn.Conv2d(in_channels, 64, 3, stride=1, padding=1, bias=False)
        net.maxpool = nn.Identity()
    elif in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    _replace_relu(net, activation, softplus_beta)
    return nn.Sequential(OrderedDict(normalization=Normalization(mean, std), net=net))


def _replace_relu(net: nn.Module, activation: str, softplus_beta: float) -> None:
    """Put a fresh activation in place of every ReLU; never an in-place one, which double back-propagation forbids."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, make_activation(activation, softplus_beta))


class _WideBlock(nn.Module):
    """BN, activation, conv3x3, dropout, BN, activation, conv3x3 with the stride; 1x1 shortcut on the raw input."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float, activation: str, beta: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            make_activation(activation, beta),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Dropout(dropout),
            nn.BatchNorm2d(outputs),
            make_activation(activation, beta),
            nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.layers(images) + self.shortcut(images)
        return result


@register_net
def wide_resnet(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    depth: int = 10,
    widen: int = 2,
    dropout: float = 0.0,
    activation: str = "relu",
    softplus_beta: float = 3.0,
) -> nn.Module:
    """Wide ResNet as the IR code has it (section 4): biases on all convolutions, logits (not its softmax).

    depth 28, widen 10, dropout 0.3 is its WRN-28-10 (36,489,290 parameters on CIFAR-10); the default is a small one.
    """
    if (depth - 4) % 6 or not 10 <= depth <= 1000:
        raise ValueError("depth must be 6n + 4, from 10 to 1000")
    if image_size % 4:
        raise ValueError("image_size must be a multiple of 4")
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalization=Normalization(mean, std))
    layers["stem"] = nn.Conv2d(in_channels, 16, 3, padding=1)
    channels = 16
    for group, (width, stride) in enumerate(((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)), start=1):
        for block in range((depth - 4) // 6):
            step = stride if block == 0 else 1
            layers[f"group{group}_{block}"] = _WideBlock(channels, width, step, dropout, activation, softplus_beta)
            channels = width
    layers["norm"] = nn.BatchNorm2d(channels, momentum=0.9)
    layers["act"] = make_activation(activation, softplus_beta)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels, num_classes)
    return nn.Sequential(layers)
