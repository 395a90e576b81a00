"""The commands, in this process: what they print where, and how they refuse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from flyweight.compressor.cli.compress import compress
from flyweight.compressor.cli.explaining import options_of
from flyweight.compressor.cli.passes import passes
from flyweight.compressor.cli.report import report
from flyweight.compressor.data import save_data
from flyweight.compressor.passes.catalogue import CATALOGUE
from flyweight.compressor.recipe import pass_class
from flyweight.compressor.run import Run
from flyweight.compressor.terminal import seconds_left
from flyweight.protos.errors import FlyweightError

pytestmark = pytest.mark.usefixtures("no_memory_processes")


@pytest.fixture
def files(digits, tmp_path: Path) -> Path:
    path, data = digits
    (tmp_path / "model.onnx").write_bytes(path.read_bytes())
    save_data(tmp_path / "data.npz", data)
    return tmp_path


def run(folder: Path, *more: str, model: str = "model.onnx", data: str = "data.npz") -> Result:
    arguments = [str(folder / model), "--data", str(folder / data), "--out", str(folder / "repository")]
    quick = ["--name", "digits", "--examine", "no", "--seconds-per-point", "0.05", "--max-slowdown", "1000"]
    return CliRunner().invoke(compress, [*arguments, *quick, *more])


def test_json_is_all_there_is_on_standard_output(files: Path) -> None:
    result = run(files, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["model"] == "digits"
    assert [variant["name"] for variant in document["variants"]] == [
        "baseline",
        "int8",
        "int8-dynamic",
        "fp16",
        "cut-int8",
        "int8-mixed",
    ]
    assert document["recommended"] in {variant["name"] for variant in document["variants"]}


def test_the_table_names_every_variant_and_the_next_step(files: Path) -> None:
    result = run(files)
    assert result.exit_code == 0, result.output
    for words in (
        "baseline",
        "int8-dynamic",
        "accuracy",
        "Recommended:",
        "flyweight serve",
        "450 samples",
    ):
        assert words in result.stdout


def test_nothing_published_is_no_failure_and_is_explained(files: Path) -> None:
    result = run(files, "--max-bytes-ratio", "0.01")
    assert result.exit_code == 0
    assert result.stdout.count("was not published: ") == 5
    assert "Recommended: baseline" in " ".join(result.stdout.split())


def test_recipes_replace_the_default_ones(files: Path) -> None:
    (files / "a.yaml").write_text("name: half\npasses: [fp16]\n")
    (files / "b.yaml").write_text("name: both\npasses: [dynamic-int8, fp16]\n")
    result = run(files, "--json", "--recipe", str(files / "a.yaml"), "--recipe", str(files / "b.yaml"))
    assert [v["name"] for v in json.loads(result.stdout)["variants"]] == ["baseline", "half", "both"]


def test_two_recipes_of_one_name_are_refused(files: Path) -> None:
    (files / "a.yaml").write_text("name: half\npasses: [fp16]\n")
    result = run(files, "--recipe", str(files / "a.yaml"), "--recipe", str(files / "a.yaml"))
    assert "Two recipes are called 'half'" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "nowhere.onnx"}, "does not exist"),
        ({"model": "data.npz"}, "is not an ONNX file"),
        ({"data": "nowhere.npz"}, "does not exist"),
        ({"data": "model.onnx"}, "is not an .npz file"),
    ],
)
def test_a_wrong_file_is_an_expected_failure(files: Path, arguments: dict[str, str], sentence: str) -> None:
    result = run(files, **arguments)
    assert isinstance(result.exception, FlyweightError)
    assert sentence in str(result.exception)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--module", "a:b"], "Give either MODEL.onnx or --module"),
        (["--weights", "w.safetensors"], "--weights belongs to --module"),
        (["--report", "nowhere/r.html"], "nowhere does not exist; make it"),
        (["--threads", "0"], "0 is not in the range"),
        (["--trials", "48"], "--trials belongs to a search; say what it is to reach with --budget."),
        (["--workers", "1"], "--workers belongs to a search"),
        (["--study", "postgresql://h/d", "--trials", "9"], "--trials and --study belong to a search"),
    ],
)
def test_arguments_that_do_not_fit_are_a_usage_error(files: Path, more: list[str], sentence: str) -> None:
    result = run(files, *more)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


def test_a_report_is_written_and_can_be_drawn_again_from_the_repository(files: Path) -> None:
    result = run(files, "--json", "--report", str(files / "first.html"))
    assert result.exit_code == 0, result.output
    again = CliRunner().invoke(
        report, [str(files / "repository"), "--name", "digits", "--out", str(files / "second.html")]
    )
    assert again.exit_code == 0, again.output
    for name in ("first.html", "second.html"):
        assert "int8-dynamic" in (files / name).read_text(encoding="utf-8")


def test_a_report_of_nothing_is_refused(files: Path) -> None:
    result = CliRunner().invoke(report, [str(files), "--name", "digits", "--out", str(files / "r.html")])
    assert "has no model 'digits'" in str(result.exception)


def test_help_shows_an_example_and_the_model_among_what_to_compress() -> None:
    shown = CliRunner().invoke(compress, ["--help"]).output
    assert "flyweight compress model.onnx --data" in shown
    assert "What to compress:\n  MODEL " in shown
    assert "Less than 5 microseconds more is always forgiven" in " ".join(shown.split())
    assert shown.index("What to compress") < shown.index("How to compress") < shown.index("Other:")


def test_every_pass_explains_itself() -> None:
    pytest.importorskip("torch")
    for name in CATALOGUE:
        shown = CliRunner().invoke(passes, [name])
        assert shown.exit_code == 0, shown.output
        assert f"- {name}" in shown.output


def test_every_option_of_every_pass_is_explained() -> None:
    pytest.importorskip("torch")
    for name in CATALOGUE:
        for option in options_of(pass_class(name)):
            assert option.text, f"{name} {option.name}"
            assert option.values, f"{name} {option.name}"


def test_options_are_told_with_their_values_ranges_and_defaults() -> None:
    shown = CliRunner().invoke(passes, ["simulate"]).output
    assert "spacing: uniform | power-of-two | codebook [default: uniform]" in shown
    assert "bits: integer, at least 1, at most 8 [default: 4]" in shown
    assert "symmetric: true or false [default: true]" in shown
    shown = CliRunner().invoke(passes, ["share"]).output
    assert "sharing.scope: layer | kind | model [default: layer]" in shown
    assert "      layer: each tensor has its own codebook." in shown
    told = {option.name: option for option in options_of(pass_class("static-int8"))}
    assert told["percentile"].values == "number, above 50, at most 100"
    assert told["reduce_range"].values == "true or false or null"


def test_a_pass_that_does_not_exist_gets_the_nearest_name() -> None:
    refused = CliRunner().invoke(passes, ["static_int"])
    assert str(refused.exception) == "There is no pass 'static_int'; did you mean 'static-int8'?"


def test_a_report_of_a_repository_that_was_tampered_with_warns(files: Path) -> None:
    run(files)
    (files / "repository" / "digits" / "fp16" / "stray.bin").write_bytes(b"")
    drawn = CliRunner().invoke(
        report, [str(files / "repository"), "--name", "digits", "--out", str(files / "r.html")]
    )
    assert drawn.exit_code == 0
    assert "warning: " in drawn.stderr
    assert "stray.bin is not listed in the manifest" in drawn.stderr
    assert "stray.bin" in (files / "r.html").read_text(encoding="utf-8")


def test_passes_whose_extra_is_missing_are_listed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> Any:
        if name == "qat":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return pass_class(name)

    monkeypatch.setattr("flyweight.compressor.cli.passes.pass_class", lacking)
    listed = CliRunner().invoke(passes, [])
    assert listed.exit_code == 0, listed.output
    assert "Needs torch, which is not installed" in listed.output
    assert "static-int8" in listed.output
    assert isinstance(CliRunner().invoke(passes, ["qat"]).exception, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: a\npasses: [nothing-like-it]\n", "there is no pass 'nothing-like-it'"),
        ("name: a\npasses: [fp16: {bits: 3}]\n", "fp16 has no option 'bits'"),
    ],
)
def test_a_recipe_of_what_there_is_not_is_refused(files: Path, text: str, sentence: str) -> None:
    (files / "a.yaml").write_text(text)
    result = run(files, "--recipe", str(files / "a.yaml"))
    assert isinstance(result.exception, FlyweightError)
    assert sentence in str(result.exception)
    assert not (files / "repository").exists()


def test_a_stop_prints_what_was_found_and_says_how_to_go_on(files: Path, monkeypatch) -> None:
    def stop_after_the_baseline(self: Run, *_rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_variant", stop_after_the_baseline)
    result = run(files, "--json")
    assert result.exit_code == 130
    assert [variant["name"] for variant in json.loads(result.stdout)["variants"]] == ["baseline"]
    assert result.stderr == (
        "Stopped; what was found until then is published and kept, and the same command goes on from there.\n"
    )


def test_a_stop_before_the_baseline_says_that_nothing_is_published(files: Path, monkeypatch) -> None:
    def stop(*_all: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "execute", stop)
    result = run(files)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.startswith("Stopped before anything was published;")


def test_what_libraries_print_goes_to_standard_error(capfd) -> None:
    import os

    from flyweight.compressor.terminal import output_kept_clean

    with output_kept_clean():
        print("from Python")  # noqa: T201
        os.write(1, b"from C\n")
    os.write(1, b"result\n")
    out, err = capfd.readouterr()
    assert out == "result\n"
    assert "from Python" in err
    assert "from C" in err


def test_floats_of_half_precision_are_told_how_to_become_the_models(files: Path, digits) -> None:
    np.savez(files / "half.npz", x=digits[1].inputs["x"].astype(np.float16))
    result = run(files, data="half.npz")
    assert "array.astype(np.float32)" in str(result.exception)


@pytest.mark.parametrize("place", ["", "nowhere/report.html"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(files: Path, place: str) -> None:
    result = run(files, "--json", "--report", str(files / place))
    assert result.exit_code == 2
    assert "--report" in result.output
    assert not (files / "repository").exists()


def test_no_figure_is_cut_short_on_a_narrow_terminal(files: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run(files)
    assert "int8-dynamic" in result.stdout
    assert "…" not in result.stdout


def test_an_earlier_variant_that_stays_is_told_on_the_terminal(files: Path) -> None:
    run(files)
    result = run(files, "--max-bytes-ratio", "0.01")
    assert "An earlier variant of this name was left as it is" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("elapsed", "done", "total", "left"),
    [(10.0, 1, 4, 30.0), (90.0, 3, 4, 30.0), (9.0, 4, 4, 0.0), (9.0, 0, 4, None), (9.0, 1, None, None)],
)
def test_the_time_left_is_at_the_pace_so_far(elapsed: float, done: int, total: int | None, left) -> None:
    assert seconds_left(elapsed, done, total) == left
