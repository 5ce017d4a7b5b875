"""Leaderboards to make pages of, and a reader that sees a page as a browser's parser would."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from bench.catalog.suites import SuiteFile
from bench.leaderboard.evidence.manifest import Result
from bench.leaderboard.findings import Finding
from bench.leaderboard.migration import migrated_name
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.reporting.page.page import PageSource, build_page
from tests.leaderboard.evidence.manifests import as_content, whole_manifest, write_content

VOID = {"meta", "br", "img", "input", "link", "hr", "col", "base", "area", "source", "track", "wbr", "embed"}
RADII = {"linf": [0.02, 0.05, 0.1], "l2": [0.5, 1.5]}
REFERENCE = {"linf": 0.05, "l2": 1.5}
EVIL = '<img src=x onerror="alert(1)">'
EVIL_SCRIPT = "</script><script>alert(2)</script>\"'><b>"


@dataclass
class Node:
    """An element of a parsed page."""

    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def find(self, tag: str, **attributes: str) -> list[Node]:
        return [
            node
            for node in self.walk()
            if node.tag == tag
            and all(node.attributes.get(name.strip("_")) == value for name, value in attributes.items())
        ]

    def with_class(self, name: str) -> list[Node]:
        return [node for node in self.walk() if name in node.attributes.get("class", "").split()]

    @property
    def text(self) -> str:
        return " ".join(self._words().split())

    def _words(self) -> str:
        return "".join(child if isinstance(child, str) else child._words() for child in self.children)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of <{tag}> is given twice: {attrs}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(html: str) -> Node:
    """The page as a tree; fails where tags are not closed in order."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1, f"not closed: {[node.tag for node in reader.open[1:]]}"
    return reader.root


def suite(name: str = "cross_norm", examples: int = 100, protocol: str = "", **parameters: Any) -> SuiteFile:
    """A suite as a manifest holds it."""
    default = {"datasets": {"fashion_mnist": {"radii": RADII, "reference": REFERENCE}}}
    return SuiteFile(
        schema_version=1, name=name, version=1, protocol=protocol or name, examples=examples,
        parameters=parameters or default,
    )  # fmt: skip


def add_run(
    folder: Path,
    model: str,
    metrics: list[dict[str, Any]],
    *,
    suite_name: str = "cross_norm",
    examples: int = 100,
    findings: list[Finding] | None = None,
    manifest: dict[str, Any] | None = None,
    **columns: Any,
) -> str:
    """Write a run's rows, and its manifest unless that is an empty dict; returns the run id."""
    run_id = f"20260101T000000-{len(list(folder.glob('runs/*')))}-{suite_name}"
    common = {
        "run_id": run_id, "finished_at": "2026-01-01T00:00:00+00:00", "model": model, "method": "standard",
        "dataset": "fashion_mnist", "split": "test", "suite": suite_name, "suite_version": 1, "seed": 0,
        "model_sha256": "a" * 64, "data_sha256": "d" * 64, "suite_sha256": "5" * 64, "bench_version": "0.1.0",
        "dependencies_sha256": "", "commit": "", "precision": "float32",
        "torch_version": "2.0", "device": "cpu", "seconds": 1.5,
    }  # fmt: skip
    rows = [{"norm": "", "eps": None, "n_examples": examples, **metric} for metric in metrics]
    append_rows(folder, [{**common, **columns, **row} for row in rows])
    path = folder / "runs" / run_id
    path.mkdir(parents=True)
    if manifest != {}:
        result = Result(findings=findings or [], counters={"claims": 12, "rejected_claims": 0})
        whole = whole_manifest(run_id=run_id, status="finished", suite=suite(suite_name, examples), result=result)
        write_content(path, as_content(whole) | (manifest or {}))
    return run_id


def metric(name: str, value: float, **where: Any) -> dict[str, Any]:
    """A row, named as older leaderboards named it."""
    names = ("metric", "subject", "attack", "direction", "unit", "prominence")
    key = dict(zip(names, migrated_name(name, where.get("attack", "")), strict=True))
    return {"value": value, "ci_low": value - 0.02, "ci_high": value + 0.02, **where, **key}


def robustness(clean: float, fall: float) -> list[dict[str, Any]]:
    """Clean accuracy, a curve in two norms, and the union."""
    found = [metric("clean_accuracy", clean)]
    for norm, radii in RADII.items():
        for place, eps in enumerate(radii, start=1):
            found.append(metric("robust_accuracy", clean - fall * place / 4, attack="sweep", norm=norm, eps=eps))
    return [*found, metric("union_accuracy", clean - fall, attack="sweep", norm="all")]


def retraining() -> list[dict[str, Any]]:
    """ROAR of two maps and the random one at three shares."""
    found = [metric("roar_score", 0.031, attack="gradient"), metric("roar_score", -0.012, attack="blurred:gradient")]
    found.append(metric("retrained_accuracy_0", 0.9, attack="unmasked"))
    for name, drop in (("random", 0.1), ("gradient", 0.3), ("blurred:gradient", 0.05)):
        for place, share in enumerate((10, 50, 90), start=1):
            found.append(metric(f"retrained_accuracy_{share}", 0.9 - drop * place / 3, attack=name))
    return found


def masking(verdict: str) -> Finding:
    return Finding("gradient_masking", "note", f"{verdict}; 50 images probed: restart_gain 1.0 %", "look closer")


def full_board(folder: Path) -> Path:
    """Everything that a page can show, with words in it that try to break out."""
    warning = Finding("bad_gradients", "warning", EVIL_SCRIPT, EVIL)
    add_run(folder, "alpha", robustness(0.9, 0.6), findings=[masking("no sign")])
    add_run(folder, "beta", robustness(0.8, 0.3), findings=[masking("masked"), warning], method="at_linf")
    add_run(folder, EVIL, robustness(0.7, 0.2), method=EVIL_SCRIPT)
    add_run(folder, "alpha", robustness(0.92, 0.6), suite_name="quick", examples=20,
            manifest={"suite": suite("quick", 20, "cross_norm").model_dump()})  # fmt: skip
    add_run(folder, "alpha", retraining(), suite_name="roar")
    unknown = [metric("clean_accuracy", 0.9), metric("wobble/left", 3.25), metric("wobble/right", 1234.5)]
    add_run(folder, "beta", unknown, suite_name="strange", method="at_linf")
    study = folder / "studies" / "lga" / "verdict.md"
    study.parent.mkdir(parents=True)
    study.write_text(
        f"# The study\n\nIt says {EVIL_SCRIPT}\n\n![a figure](https://example.org/x.png)\n\n"
        "[a](javascript:alert(3)) [b](https://example.org)\n\n| claim | verdict |\n|---|---|\n| stable | supported |\n"
    )
    return folder


def page_of(folder: Path, *, plain: bool = True, **source: Any) -> str:
    return build_page(
        PageSource(read_leaderboard(folder), folder, source.pop("title", "A page"), plain=plain, **source)
    )


def unpack_all(html: str) -> str:
    """A packed page as the browser has it once the script has put its parts back."""
    return re.sub(r'<script type="text/plain" class="packed">(.*?)</script>', _unpacked, html)


def _unpacked(block: re.Match[str]) -> str:
    return gzip.decompress(base64.b64decode(block[1])).decode()
