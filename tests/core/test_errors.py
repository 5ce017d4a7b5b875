from __future__ import annotations

import pickle

from bench.core.errors import BenchError, bench_command


def test_an_error_raised_from_another_has_its_options_unless_it_has_its_own() -> None:
    inner = BenchError("no data.", option=("download", "data_dir"))
    outer = BenchError("cannot plan: no data.")
    outer.__cause__ = inner
    assert outer.named_options() == ("download", "data_dir")
    outer.options = ("model",)
    assert outer.named_options() == ("model",)


def test_an_error_keeps_its_options_on_the_way_from_another_process() -> None:
    returned = pickle.loads(pickle.dumps(BenchError("too many.", option="examples")))
    assert (str(returned), returned.named_options()) == ("too many.", ("examples",))


def test_a_command_to_copy_has_a_flag_for_each_value_and_is_quoted_for_a_shell() -> None:
    line = bench_command("run", model=["a", "my model"], examples=None, fresh=True, download=False, batch_size=5)
    assert line == "bench run --model a --model 'my model' --fresh --batch-size 5"


def test_a_message_is_one_line_whatever_names_it_holds() -> None:
    assert (
        str(BenchError("no array of a\nb\r\n\x1b[31mc\u2028d in x.npz: ä, 日本."))
        == "no array of a b [31mc d in x.npz: ä, 日本."
    )
