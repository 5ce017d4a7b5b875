from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks import AttackResult, register_attack
from bench.attacks.registry import Attack, attack_of, described, find_attack, named_attack, our_attacks
from bench.attacks.running import run_attack
from bench.attacks.user_files import UserFile
from bench.attacks.verification import AttackResults
from bench.core.errors import BenchError
from bench.core.keywords import checked_keywords
from tests.attacks.problem import small_examples

SHORT = {
    "apgd-ce": {"iterations": 20}, "apgd-dlr": {"iterations": 20}, "apgd-t": {"iterations": 20},
    "fab-t": {"iterations": 20}, "square": {"queries": 20}, "pgd": {"steps": 10}, "sweep": {"steps": 10},
    "cascade": {"stages": [{"steps": 10}]}, "hop-skip-jump": {"steps": 2}, "sigma-zero": {"steps": 40},
}  # fmt: skip


def test_every_attack_of_ours_has_a_name() -> None:
    assert our_attacks().keys() == SHORT.keys()


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        *SHORT.items(), ("torchattacks:PGD", {"steps": 10}), ("torchattacks:CW", {"steps": 5}),
        ("foolbox:LinfPGD", {"steps": 10}), ("foolbox:L2DeepFoolAttack", {"steps": 10}),
        ("pyautoattack:apgd-ce", {"iterations": 10}),
    ],
)  # fmt: skip
def test_each_breaks_by_name_only_what_can_be_broken(name: str, keywords: dict[str, object]) -> None:
    examples, _ = small_examples()
    run = named_attack(name, keywords)
    norm = {"torchattacks:CW": "l2", "sigma-zero": "l1"}.get(name, (*run.attack.norms, "linf")[0])
    exact = examples.model.exact_distance(examples.images, norm)
    eps, results, done = float(exact.quantile(0.7)), AttackResults.start(examples.labels, examples.labels), []
    eps *= 8 if norm == "l1" else 1
    run_attack(run, examples, norm, [eps], results=results, on_progress=done.append)
    broken = results.broken(norm, eps)
    assert broken.any() and not broken[exact > eps].any() and sum(done) == len(examples)
    blind = name in ("square", "hop-skip-jump")
    assert (results.gradient_evaluations > 0) != blind and results.counters()["queries"] >= blind


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("apgdt", "did you mean apgd-t"), ("torchattacks:PDG", "did you mean"), ("foolbox:LinfPGDD", "did you mean"),
        ("pyautoattack:fabt", "did you mean"), ("my.py:attack", "runs only when you name the file"),
    ],
)  # fmt: skip
def test_an_unknown_attack_gets_one_line(name: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        find_attack(name)


def some(
    model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor, steps: int, share: float = 0.5,
    kinds: tuple[str, ...] = (), loss: Literal["a", "b"] = "a", few: Annotated[int, Field(le=3)] = 1, free=None,
) -> Tensor:  # fmt: skip
    return images


def checked(attack: Attack, given: dict[str, object]) -> dict[str, Any]:
    return checked_keywords(f"attack {attack.name}", attack.parameters, given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs the parameter steps"),
        ({"steps": 3, "stpes": 4}, "unknown parameter of attack some 'stpes'; did you mean steps"),
        ({"steps": 3, "eps": 0.1}, "unknown parameter"),
        ({"steps": "3"}, "steps: input should be a valid integer"),
        ({"steps": True}, "steps: input should be a valid integer"),
        ({"steps": 3, "share": float("nan")}, "share: input should be a finite number"),
        ({"steps": 3, "loss": "c"}, "loss: input should be 'a' or 'b'"),
        ({"steps": 3, "few": 4}, "few: input should be less than or equal to 3"),
        ({"steps": 3, "kinds": [1]}, r"kinds\.0: input should be a valid string"),
    ],
)
def test_keywords_are_checked_against_the_signature(given: dict[str, object], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        checked(described(some, "some"), given)


def test_keywords_come_as_the_signature_has_them() -> None:
    given = {"steps": 3, "share": 1, "kinds": ["x", "y"], "free": object}
    assert checked(described(some, "some"), given) == {**given, "kinds": ("x", "y")}
    (stage,) = checked(find_attack("cascade"), {"stages": [{"steps": 4, "refine": True}]})["stages"]
    assert stage.steps == 4 and stage.refine


@pytest.mark.parametrize("facts", [{"kind": "best"}, {"norms": ("l3",)}, {"norms": ()}])
def test_a_registration_that_says_nothing_known_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(BenchError, match="is registered with kind"):
        attack_of(register_attack("x", **facts)(lambda model, images, labels: images), "x")  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="is a int, not a function"):
        attack_of(3, "x")


FILE = """
from bench.attacks import AttackResult, register_attack

@register_attack("named otherwise", norms=("l2",), kind="minimum")
def function(model, images, labels, *, depth: int = 2):
    return AttackResult(images)

value = 3
"""


def test_a_file_of_the_users_runs_only_as_the_file_that_was_named(tmp_path: Path) -> None:
    path = tmp_path / "my.py"
    path.write_text(FILE)
    file = UserFile.read(path)
    attack = find_attack("elsewhere/my.py:function", file)
    assert (attack.norms, attack.kind, attack.trusted) == (("l2",), "minimum", False)
    assert list(attack.parameters) == ["depth"]
    path.write_text("raise ValueError('another file by now')")
    assert find_attack("my.py:function", file).name == "my.py:function", "the bytes that were read"
    for name, named in (("other.py:function", file), ("my.py:function", UserFile.read(path)), ("my.py:value", file)):
        with pytest.raises(BenchError):
            find_attack(name, named)
    with pytest.raises(BenchError, match="cannot read"):
        UserFile.read(tmp_path / "none.py")
    assert torch.equal(attack.function(None, torch.ones(1), None).images, torch.ones(1))
    assert isinstance(attack.function(None, torch.ones(1), None), AttackResult)
