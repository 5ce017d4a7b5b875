from __future__ import annotations

from pathlib import Path

import pytest

from bench.catalog.suites import list_suites, read_suite, resolve_suites
from bench.core.errors import BenchError
from bench.protocols import protocol_for
from tests.conftest import TINY_SUITE, Bench

DIGESTS = {
    "attribution_agreement": "dd5986bc1e095f755a09685748beafd9d66842d0324ef0e4156221151091401d",
    "attribution_agreement_quick": "75c1736b496649fac65eb126d5614566e445bdf2e27337215b169473a7bb2683",
    "attribution_attack": "2fb83cee908edaae08b598c867c8212f48a249b412c40957ba6b8afe77551822",
    "attribution_attack_five": "150b96b540af130e446e757b432efc6b0cee1bc4b4f9ade0ff59e8318ae7f876",
    "attribution_attack_quick": "1082c7b4edbd6e0bfae741421e37b3eafaf1ae99414f1f877010c43d8136f7fd",
    "attribution_attack_maps": "3b1353d07c21f2a778ddc8a8bad06d4e07cf24aefbb1243199aa8d019d11e7d0",
    "attribution_stability": "dead1e0acf7bf00124e5dc65bdf110c74e544e941dfd0decf36c0cb55957c301",
    "attribution_stability_five": "2f6187f69b036866928ad0cc0ba80391bfaff28f16764d261988034b83d04124",
    "attribution_stability_quick": "0e811b83a243955b4214b3d7c9d5cf6cc0b387a9d0de05211bc107425e2273ae",
    "autoattack": "a9cc10d8b59df3a78ab55e3ca07acfb785b00a2fc2faa6d8b25c210f22a042cf",
    "autoattack_fast": "78b62526de3414b86fdd8777f21bc3c15cf2c957be4c3e1d0a9aa21785385c4f",
    "autoattack_plus": "b3897757e8a9ccce62f5cb796f1299ee8d4eae69d6f034f9138e659489b7e45d",
    "autoattack_rand": "2a2e2f547e11af1bb6fcc276ed18655ec7b059e7a60cf08b7809d3254a4d04a5",
    "blackbox": "084560d9ee8683e5b739d2e42ad9f4d4250c30045ae0a0e1f23ebc90692ffeb1",
    "clean": "66cde802b65926f945e88815068b689e595040bce73f2c6997755fcf0502ea37",
    "complexity": "30bddbf58027175cf6f192f6344ee96afcdee97a3c8a4d01c9cfe4a0d7eda56b",
    "complexity_quick": "e53c95766a8ac089b32ab2ba48589aad83382e806f40d13fcd7355c7c7430d17",
    "corruptions": "1f61f615a694297414d67386a8d990bdae92ed612cd39d348feac0dab8cbd51f",
    "cross_norm": "2fd89b8dc56187fcc2caf015e6b745ed0d8763501721ba088743b3463fdfb826",
    "cross_norm_l0": "e2cea545f8322d7d249319bb503f6ba2e1d318fb865d305c5cda58acffd04779",
    "cross_norm_quick": "3124f23b6fb1780b172b5aaa1f82302a6e2a5540587a31432ae9de1028df971a",
    "e_at": "b80855e513e3688560e707c2a065aec15e2fb221db4600c8cf03f5b8235947e4",
    "faithfulness": "d4f172f36b39e6dae201f4fc4183dfc199979331e864510f959f19bb123894ca",
    "faithfulness_quick": "61a222d74d2dd7992bb3754c702d292f00a112070b0038e7d07eae7d837a719c",
    "gradient_alignment": "96122dfa3c0206ee47ca79e477737639a04557ce12975050c3ca77b12081d287",
    "insertion": "7129dac24351bbce27b915d489b6a858d329f1c2e1ffe8b043a63fb0e43b0f9d",
    "insertion_five": "a8cfcc4f184e285c14912284aa070a47847e4e96d12e8aae95651314ae59eed3",
    "insertion_quick": "2fdc740263cb38df5f5695e37896357f10a2433b4aaaf1671702dc8afa1c202e",
    "kar": "d05717b986284b46f0548fdf42e5a05c58c4b915b0f1760ce645ccc2f1e7ad5e",
    "kar_paper": "3f484d59669b2ffff2e96c354213c98d1e626e202297e10fad59a36e1fde9beb",
    "kar_quick": "e1fb6224af864b78cb0b140f49a83d87e1bd1b7ebff93a6a66f0ba4f627281e1",
    "localisation": "51d99a4345092f296046e998c462605762bcad7c5bbc489e21b882e750199955",
    "localisation_quick": "6c0e59704ef5847b9c2e9f12eb2179bb96a7b0121c620ad3917b58ab20adab72",
    "manifold_distance": "70674f5dd0fb058764586ba748fd2108e1ba6a5135d9a5665046ea37dcbd1c7f",
    "manifold_distance_paper": "1110d13e8ca65d3b91a124c91fbef4768632d9c43a5bcb57f71b3e1e071af079",
    "manifold_distance_reduced": "4b8b1e7558d33e70db271158a25d2b9e4b15c150b9949e792e4871a4cfc63980",
    "minimum_norm": "70b0ed02bdda6bde57948cf647a2d10261c144f59a3dcaa074c6d9ed8c133cac",
    "msd": "6f565abc245fc0dddc3bdd62770ac758388c98e0e09d259f2487655439aedfdb",
    "ramp": "0c9fcd2784381708832c6781c96ee503a0d0e3dd6add916c28cdae75a70c71bf",
    "roar": "16cb39951d9f9fa1899f43af3a8633dfe29c8a302ea07e177b5cdefc14aabb4e",
    "roar_paper": "54a8ef64e3049d53560acf2720a77ff880141bc51c96cb551ee80fef3d2ac2e1",
    "roar_quick": "f8d90a6ff39f300f62b2d4c89f204c1e4a18813acd07242aafe8c284c99c1fa0",
    "sanity_checks": "f88d31c40bf20a0c7284367e7feadd2c419338a7312d4624ce392c939c06aa9e",
    "sanity_checks_quick": "16b2774f88d067023c6565ed9f9ca1e14e69df34f51688b3efb2558b3a7f9608",
    "union": "f59ca84440f8f128eb96e9d2d027e0576dedb60a77b379a7274887a49a04d06a",
}
"""What rows of the leaderboard say; a suite whose content changes gets a new version, and its new digest here."""


def test_every_shipped_suite_is_valid_and_has_the_digest_that_rows_name() -> None:
    suites = list_suites()
    for suite in suites:
        protocol_for(suite)
    assert {suite.name: suite.sha256 for suite in suites} == DIGESTS


def test_the_radii_of_fashion_mnist_are_the_published_ones() -> None:
    radii = resolve_suites(["cross_norm"])[0].file.parameters["datasets"]["fashion_mnist"]["radii"]
    assert radii == {
        "linf": [0.02, 0.05, 0.1, 0.15, 0.2],
        "l2": [0.5, 1.0, 1.5, 2.0, 2.5],
        "l1": [5.0, 10.0, 15.0, 20.0, 30.0],
    }


MISTAKES = {
    "top-level key": (TINY_SUITE.replace("version = 1\n", "version = 1\ncolour = 1\n", 1), "colour: unknown key"),
    "attack key": (TINY_SUITE.replace("steps = 5", "steps = 5\nspeed = 9"), "speed: unknown key"),
    "missing name": (TINY_SUITE.replace('name = "tiny"', ""), "name: field required"),
    "unknown norm": (TINY_SUITE.replace("l2 = [1.5]", "l3 = [1.5]"), "linf"),
    "negative radius": (TINY_SUITE.replace("[0.05, 0.1]", "[-0.05, 0.1]"), "greater than 0"),
    "reference not a radius": (
        TINY_SUITE.replace("linf = 0.1,", "linf = 0.3,"),
        "reference must name one of the radii",
    ),
    "radius twice": (TINY_SUITE.replace("[0.05, 0.1]", "[0.1, 0.1]"), "given twice"),
    "radius as a string": (TINY_SUITE.replace("[0.05, 0.1]", '["0.05", 0.1]'), "valid number"),
    "radius that is true": (TINY_SUITE.replace("[1.5]", "[true]"), "valid number"),
    "radius beyond every image": (TINY_SUITE.replace("1.5", "1e39"), "larger than any image"),
    "too many radii": (TINY_SUITE.replace("[1.5]", str([one / 1000 for one in range(1, 102)])), "at most 100"),
    "too many steps": (TINY_SUITE.replace("steps = 5", "steps = 1_000_000_000"), "less than or equal to 100000"),
    "version of many digits": (TINY_SUITE.replace("version = 1\nproto", f"version = {10**12}\nproto"), "version"),
    "unknown loss": (TINY_SUITE.replace('["margin"]', '["hinge"]'), "margin"),
    "unknown protocol": (TINY_SUITE.replace('"cross_norm"', '"cros_norm"'), "did you mean cross_norm"),
    "unknown kind": (TINY_SUITE.replace('kind = "sweep"', 'kind = "seep"'), "sweep"),
    "no TOML": ("this is = = not toml", "not valid TOML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_suite_file_is_explained(tmp_path: Path, mistake: str) -> None:
    content, expected = MISTAKES[mistake]
    path = tmp_path / "tiny.toml"
    path.write_text(content)
    with pytest.raises(BenchError) as caught:
        protocol_for(read_suite(path))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


TORCHATTACKS = """
[[parameters.attacks]]
kind = "torchattacks"
name = "pgd"
class_name = "PGD"
norm = "linf"
parameters = {{ {parameters} }}
"""


@pytest.mark.parametrize(
    "parameters", ["steps = 2020-01-01", "steps = 1_000_000_000", 'steps = "5"', "random_start = 1", "steps = 2.5"]
)
def test_a_parameter_that_torchattacks_cannot_take_is_refused_before_it_runs(tmp_path: Path, parameters: str) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_SUITE + TORCHATTACKS.format(parameters="steps = 5"))
    protocol_for(read_suite(path))
    path.write_text(TINY_SUITE + TORCHATTACKS.format(parameters=parameters))
    with pytest.raises(BenchError, match=r"steps|random_start|date"):
        protocol_for(read_suite(path))


def test_the_digest_ignores_comments_and_layout_but_no_parameter(tmp_path: Path) -> None:
    digests = []
    for content in (
        TINY_SUITE,
        "# a comment\n" + TINY_SUITE.replace("steps = 5", "steps  =  5"),
        TINY_SUITE.replace("steps = 5", "steps = 6"),
    ):
        path = tmp_path / "tiny.toml"
        path.write_text(content)
        digests.append(read_suite(path).sha256)
    assert digests[0] == digests[1] != digests[2]
    for tail in ("", "[parameters]\n"):
        path.write_text(f'schema_version = 1\nname = "tiny"\nversion = 1\nprotocol = "clean"\nexamples = 2\n{tail}')
        digests.append(read_suite(path).sha256)
    assert digests[-1] == digests[-2]


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tiny.toml").write_text(TINY_SUITE)
    with pytest.raises(BenchError, match="two suites are named tiny"):
        resolve_suites([str(tmp_path / "a" / "tiny.toml"), str(tmp_path / "b" / "tiny.toml")])


EXTENDING = """
extends = "cross_norm"
name = "mine"
version = 1
examples = 7

[parameters.datasets.fashion_mnist]
reference = { linf = 0.05, l2 = 1.0, l1 = 5.0 }

[parameters.datasets.letters]
reference = { l2 = 1.0 }
radii = { l2 = [1.0] }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one suite, `mine`, that extends a shipped one."""
    (tmp_path / "mine.toml").write_text(EXTENDING)
    return tmp_path


def test_a_suite_has_what_it_extends_but_for_what_it_says(folder: Path) -> None:
    mine, parent = read_suite(folder / "mine.toml").file, resolve_suites(["cross_norm"])[0].file
    assert (mine.name, mine.version, mine.examples, mine.description) == ("mine", 1, 7, "")
    assert (mine.protocol, mine.source) == (parent.protocol, parent.source)
    own, inherited = mine.parameters["datasets"], parent.parameters["datasets"]
    assert mine.parameters["attacks"] == parent.parameters["attacks"]
    assert own["fashion_mnist"] == {
        "reference": {"linf": 0.05, "l2": 1.0, "l1": 5.0},
        "radii": inherited["fashion_mnist"]["radii"],
    }
    assert own["letters"] == {"reference": {"l2": 1.0}, "radii": {"l2": [1.0]}}
    assert all(own[name] == inherited[name] for name in ("mnist", "cifar10"))


def test_what_a_suite_extends_stays_as_it_is(folder: Path) -> None:
    (folder / "further.toml").write_text('extends = "mine.toml"\nname = "further"\nversion = 2\n')
    further = read_suite(folder / "further.toml")
    assert [path.name for path in further.extends] == ["mine.toml", "cross_norm.toml"]
    assert further.file.parameters == read_suite(folder / "mine.toml").file.parameters
    assert resolve_suites(["cross_norm"])[0].sha256 == DIGESTS["cross_norm"]


WRONG_EXTENSIONS = {
    "no such suite": ('extends = "cros_norm"\nname = "a"\nversion = 1', "did you mean cross_norm"),
    "several": ('extends = "cross*"\nname = "a"\nversion = 1', "unknown suite to extend"),
    "no such file": ('extends = "b.toml"\nname = "a"\nversion = 1', "b.toml does not exist"),
    "not a name": ('extends = ["cross_norm"]\nname = "a"\nversion = 1', "extends must"),
    "itself": ('extends = "a.toml"\nname = "a"\nversion = 1', "extends itself"),
    "no version": ('extends = "cross_norm"\nname = "a"', "version: field required"),
    "no name": ('extends = "cross_norm"\nversion = 1', "name: field required"),
    "unknown key": ('extends = "cross_norm"\nname = "a"\nversion = 1\ncolour = 1', "colour: unknown key"),
    "unknown parameter": ('extends = "cross_norm"\nname = "a"\nversion = 1\nparameters = { x = 1 }', "x: unknown key"),
    "no table": ('extends = "cross_norm"\nname = "a"\nversion = 1\nparameters = 3', "parameters: "),
    "in the parameters": ('extends = "roar"\nname = "a"\nversion = 1\nparameters = { extends = "kar" }', "extends"),
}


@pytest.mark.parametrize("mistake", WRONG_EXTENSIONS)
def test_a_mistake_in_what_a_suite_extends_is_explained(tmp_path: Path, mistake: str) -> None:
    content, expected = WRONG_EXTENSIONS[mistake]
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(BenchError, match=expected) as caught:
        protocol_for(read_suite(tmp_path / "a.toml"))
    assert str(tmp_path) in str(caught.value)


def test_suites_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    for own, other in ("ab", "ba"):
        (tmp_path / f"{own}.toml").write_text(f'extends = "{other}"\nname = "{own}"\nversion = 1')
    with pytest.raises(BenchError, match=r"extends itself, by way of a\.toml, b\.toml"):
        resolve_suites(["a"], tmp_path)


def test_show_prints_what_a_suite_comes_to(folder: Path, bench: Bench) -> None:
    for command in (["show", "mine", "--suite-path", str(folder)], ["validate", str(folder / "mine.toml")]):
        shown = bench("suites", *command)[1]
        (folder / "whole.toml").write_text(shown[shown.index("# extends") :])
        assert read_suite(folder / "whole.toml").file == read_suite(folder / "mine.toml").file
        assert not read_suite(folder / "whole.toml").extends


def test_a_folder_of_suites_stands_beside_the_shipped_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [suite.name for suite in resolve_suites(["m*"], folder)] == [
        "manifold_distance",
        "manifold_distance_paper",
        "manifold_distance_reduced",
        "mine",
        "minimum_norm",
        "msd",
    ]
    (folder / "more").mkdir()
    (folder / "more" / "yours.toml").write_text('extends = "mine"\nname = "yours"\nversion = 1')
    monkeypatch.setenv("BENCH_SUITES", str(folder))
    suites = {suite.name for suite in list_suites(folder / "more")}
    assert suites == {*DIGESTS, "mine", "yours"}
    assert len(list_suites(folder)) == len(DIGESTS) + 1  # named twice, there once


WRONG_FOLDERS = {
    "shadows a shipped suite": ("cross_norm.toml", EXTENDING.replace('"mine"', '"cross_norm"'), "has the name of"),
    "called otherwise than its file": ("yours.toml", EXTENDING, "calls itself mine"),
}


@pytest.mark.parametrize("mistake", WRONG_FOLDERS)
def test_a_mistake_in_a_folder_of_suites_is_explained(tmp_path: Path, mistake: str) -> None:
    name, content, expected = WRONG_FOLDERS[mistake]
    (tmp_path / name).write_text(content)
    with pytest.raises(BenchError, match=expected):
        list_suites(tmp_path)


def test_a_folder_of_suites_that_is_none_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="is not a folder") as caught:
        list_suites(tmp_path / "none")
    assert caught.value.options == ("suite_path",)
    monkeypatch.setenv("BENCH_SUITES", str(tmp_path / "none"))
    with pytest.raises(BenchError, match="BENCH_SUITES names"):
        list_suites()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"datasets": {"d": {"reference": {"linf": 0.1, "l2": 1}}}}, {"linf": 0.1, "l2": 1.0}),
        ({"datasets": {"other": {"reference": {"linf": 0.1}}}}, {}),
        ({"datasets": {"d": {"reference": {"linf": "x"}}}}, {}),
        ({"datasets": {"d": ["reference"]}}, {}),
        ({"datasets": 3}, {}),
    ],
)
def test_the_reference_radii_of_a_data_set_are_those_that_are_numbers(
    parameters: dict[str, object], expected: dict[str, float]
) -> None:
    (suite,) = resolve_suites(["cross_norm"])
    assert suite.file.model_copy(update={"parameters": parameters}).reference("d") == expected
