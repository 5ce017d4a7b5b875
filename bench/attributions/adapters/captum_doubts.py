"""Where captum is known to be wrong: what its hooks on modules cannot see of a net."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from bench.attributions.layers import running_modules, short_name
from bench.attributions.operations import ACTIVATION_NAMES, OperationMode, tensors_in
from bench.core.errors import BenchError
from bench.nets.intake import copy_net
from bench.nets.layers import Normalization
from bench.nets.preparation import usual_layers

_RESCALED = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softmax)
"""What captum's DeepLIFT has a rule for, beside max-pooling, where it misses some of the logit's change."""
_SEEN: dict[str, tuple[type[nn.Module], ...]] = {
    "GuidedBackprop": (nn.ReLU,), "Deconvolution": (nn.ReLU,), "GuidedGradCam": (nn.ReLU,),
    "DeepLift": _RESCALED, "DeepLiftShap": _RESCALED, "LRP": (nn.ReLU, nn.Tanh),
}  # fmt: skip
"""By class, the modules whose activations it treats; others keep their plain derivative."""
OURS = {
    "GuidedBackprop": "guided_backprop", "Deconvolution": "deconvolution", "GuidedGradCam": "grad_cam",
    "DeepLift": "deeplift", "DeepLiftShap": "deeplift", "LRP": "lrp_epsilon",
}  # fmt: skip
"""What does not have these faults."""


def hooked_copy(model: nn.Module) -> nn.Module:
    """A copy for captum's hooks and attributes, with the same weights in memory and no activation in place.

    captum leaves attributes on modules, and hooks after an error; its hooks cannot stand activations in place, and it
    knows modules by their exact class.
    """
    copied = copy_net(model, {id(one): one for one in (*model.parameters(), *model.buffers())})
    for module in copied.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  (not declared of modules)
    return usual_layers(copied)


def give_rules(model: nn.Module) -> None:
    """Give layers that captum's LRP has no rule for one, where it is plain what it is; raises BenchError elsewhere.

    What only moves values takes the epsilon rule, and the input's normalisation passes relevance on unchanged.
    """
    from captum.attr._core import lrp
    from captum.attr._utils.lrp_rules import EpsilonRule, IdentityRule

    known = (*lrp.SUPPORTED_LAYERS_WITH_RULES, *lrp.SUPPORTED_NON_LINEAR_LAYERS)
    for name, module in model.named_modules():
        if list(module.children()) or type(module) in known:
            continue
        if isinstance(module, Normalization):
            module.rule = IdentityRule()
        elif isinstance(module, nn.Flatten | nn.Unflatten | nn.Identity):
            module.rule = EpsilonRule()
        else:
            kind = type(module).__name__
            raise BenchError(
                f"captum's LRP has no rule for the {kind} {short_name(name)!r} of this net; use lrp_epsilon."
            )


def doubt_of(class_name: str, model: nn.Module, images: Tensor) -> str | None:
    """What a class of captum gets wrong on this net, if it is known to; `images` (N, C, H, W) are run once."""
    if class_name not in _SEEN:
        return None
    with running_modules(model) as running:
        watch = _Watch(running)
        try:
            watch.logits(model, images.detach().requires_grad_(True), f"captum's {class_name}")
        except BenchError:
            return "the net cannot be looked into"
    found = []
    unseen = [name for name, module in watch.activations if type(module) not in _SEEN[class_name]]
    if class_name == "LRP":
        unseen = [name for name in unseen if name != "relu"]  # whose derivative is its rule
    if unseen:
        found.append(f"{len(unseen)} activations keep their plain derivative ({', '.join(dict.fromkeys(unseen))})")
    if class_name not in ("DeepLift", "DeepLiftShap", "LRP"):
        return found[0] if found else None
    found += [f"{short_name(name)} runs {count} times" for name, count in watch.uses.items() if count > 1][:1]
    if class_name == "LRP" and watch.sums:
        found.append(f"relevance is doubled at {watch.sums} residual sums")
    if class_name != "LRP" and watch.pools:
        found.append("contributions miss some of the logit's change at max-pooling")
    return "; ".join(found) or None


class _Watch(OperationMode):
    """Which activations run in which module, what is added up, and how often a module runs."""

    rewrites: ClassVar[bool] = False

    def __init__(self, running: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.running = running
        self.activations: list[tuple[str, nn.Module | None]] = []
        self.sums = self.pools = 0
        self.uses = Counter[str]()

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = [one for one in tensors_in((args, kwargs)) if one.requires_grad]
        place, module = self.running[-1] if self.running else ("", None)
        if given and name in ACTIVATION_NAMES:
            self.activations.append((name, module))
        innermost = module is None or not list(module.children())
        if given and (name in ACTIVATION_NAMES or name in ("conv2d", "linear")) and innermost:
            self.uses[place] += 1
        self.sums += name == "add" and len(given) == 2
        self.pools += name == "max_pool2d" and bool(given)
        return func(*args, **kwargs)
