"""Residual nets: ResNet18 for small and for ImageNet-sized images (LGA), Wide ResNets (IR)."""

from __future__ import annotations

from torch import Tensor, nn

from bench.nets.registry import NetOptions, register_classifier

_SMALL_IMAGE = 64
"""Below this side, ResNet18 has the 3x3 stem without max-pooling that is usual on CIFAR."""


@register_classifier
def resnet18(net: NetOptions) -> dict[str, nn.Module]:
    """torchvision's ResNet18; 3x3 stride-1 stem and no max-pool for images below 64x64 (11,173,962 parameters)."""
    # here, since it imports torch's compiler, which would double the time that every command takes to start
    from torchvision.models import resnet18 as torchvision_resnet18

    inner = torchvision_resnet18(weights=None, num_classes=net.num_classes)
    if net.image_size < _SMALL_IMAGE:
        inner.conv1 = nn.Conv2d(net.in_channels, 64, 3, stride=1, padding=1, bias=False)
        inner.maxpool = nn.Identity()
    elif net.in_channels != 3:
        inner.conv1 = nn.Conv2d(net.in_channels, 64, 7, stride=2, padding=3, bias=False)
    for module in inner.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):  # which works in place, and double back-propagation forbids that
                setattr(module, name, net.act())
    return {"net": inner}


class _WideBlock(nn.Module):
    """BN, activation, conv3x3, dropout, BN, activation, conv3x3 with the stride; 1x1 shortcut on the raw input."""

    def __init__(self, net: NetOptions, inputs: int, outputs: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            net.act(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Dropout(dropout),
            nn.BatchNorm2d(outputs),
            net.act(),
            nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.layers(images) + self.shortcut(images)
        return result


@register_classifier
def wide_resnet(net: NetOptions, *, depth: int = 10, widen: int = 2, dropout: float = 0.0) -> dict[str, nn.Module]:
    """Wide ResNet as the IR code has it (section 4): biases on all convolutions, logits (not its softmax).

    depth 28, widen 10, dropout 0.3 is its WRN-28-10 (36,489,290 parameters on CIFAR-10); the default is a small one.
    """
    if (depth - 4) % 6 or not 10 <= depth <= 1000:
        raise ValueError("depth must be 6n + 4, from 10 to 1000")
    net.side(4)
    layers: dict[str, nn.Module] = {"stem": nn.Conv2d(net.in_channels, 16, 3, padding=1)}
    channels = 16
    for group, (width, stride) in enumerate(((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)), start=1):
        for block in range((depth - 4) // 6):
            step = stride if block == 0 else 1
            layers[f"group{group}_{block}"] = _WideBlock(net, channels, width, stride=step, dropout=dropout)
            channels = width
    layers["norm"] = nn.BatchNorm2d(channels, momentum=0.9)
    layers["act"] = net.act()
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels, net.num_classes)
    return layers
