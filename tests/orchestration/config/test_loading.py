"""Job files: valid ones are read, errors are one line that names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_core import published
from nas_core.ops import OPS
from nas_core.search_settings import SearchSettings
from nas_core.settings import RetrainSettings
from orchestration.config.loading import SpecError, check_job, load_job


def test_a_job_file_is_read_with_its_defaults(job_file: Path) -> None:
    job = load_job(job_file)
    assert (job.name, job.data.source) == ("small", "digits")
    assert job.cases[0].budgets_ms == ("80%",)
    assert job.search == SearchSettings()
    assert job.retrain is None


def test_a_job_survives_being_sent_to_a_worker(job_file: Path) -> None:
    job = load_job(job_file, ["retrain.epochs=3", "cases.0.budgets_ms=[0.5, '80%']"])
    assert check_job(job.to_dict(), "job") == job


def test_an_unknown_baseline_is_refused_with_the_known_ones(job_file: Path) -> None:
    with pytest.raises(
        SpecError, match=r"cases\[0\].baseline: 'alexnet' is not a baseline; .*mnas"
    ):
        load_job(job_file, ["cases=[{target: mobile, baseline: alexnet}]"])


def test_a_ranking_of_networks_that_share_no_weights_is_refused(job_file: Path) -> None:
    settings = ["search.ranking_networks=4", "search.strategy=rl_trials", "retrain.epochs=1"]
    with pytest.raises(SpecError, match="trains no supernet whose ranking could be measured"):
        load_job(job_file, settings)


def test_a_target_may_stand_in_several_entries(job_file: Path) -> None:
    entries = (
        "[{target: mobile, budgets_ms: [0.3]}, {target: mobile, baseline: mobilenet_v2_0.35},"
        " {target: mobile, architecture: proxyless_mobile},"
        " {target: mobile, architecture: nets/my.json}, {target: mobile, budgets_ms: ['80%']}]"
    )
    job = load_job(job_file, [f"cases={entries}"])
    assert [case.kind for case in job.cases] == ["search", "baseline", "given", "given", "search"]
    assert check_job(job.to_dict(), "job") == job


EARLIER = {
    "name": "search_mobile",
    "data": {"source": "digits", "path": None, "resolution": 32, "channels": None}
    | {"test_share": 0.25, "max_shift": 0.1, "flip": False},
    "cases": [{"target": "mobile", "budgets_ms": ["80%"]}],
    "space": {"name": "proxyless_small", "ops": None, "reference_op": "mbconv_k3_e6"},
    "measure": {"rounds": 5, "network_rounds": 50, "samples_per_round": 3, "sample_ms": 2.0},
    "search": {"strategy": "two_path", "objective": "absolute", "beta": 0.1, "alpha_lr": 0.1}
    | {"warmup_epochs": 4, "epochs": 4, "hold_epochs": 1, "batch_size": 16, "alpha_every": 2},
    "retrain": None,
    "cluster": {"workers": "auto", "gpus_per_worker": "auto", "max_failures": 3},
    "storage": "~/proxyless",
    "record": {"experiment": "digits", "tracking_uri": None},
    "seed": 0,
}
"""Settings as stored in a job.json by version 0.1."""


def test_the_settings_of_a_job_of_an_earlier_version_are_read() -> None:
    job = check_job(EARLIER, "job.json")
    assert job.cases[0].kind == "search"
    assert job.search.objective_name == "absolute"


def test_an_override_replaces_one_setting_and_makes_its_section(job_file: Path) -> None:
    job = load_job(job_file, ["retrain.epochs=3", "search.lr=1e-3", "name=other"])
    assert job.retrain == RetrainSettings(epochs=3)
    assert (job.search.lr, job.name) == (1e-3, "other")


WRONG = {
    "search.epoch=3": "search.epoch is not a setting; did you mean 'epochs'?",
    "nam=x": "nam is not a setting; did you mean 'name'?",
    "cases.0.budget=[1]": "cases[0].budget is not a setting; did you mean 'budgets_ms'?",
    "search.epochs=six": "search.epochs is 'six'; expected a whole number",
    "search.epochs=1.5": "search.epochs is 1.5; expected a whole number",
    "search.epochs=true": "search.epochs is True; expected a whole number",
    "search.epochs=0": "search.epochs is 0; expected a whole number of 1 or more",
    "search.beta=.nan": "search.beta is nan; expected a finite number",
    "search=5": "search is 5; expected a mapping",
    "targets=[phone]": "targets is ['phone']; expected a mapping",
    "cases.0.budgets_ms=[5.1, -3.0]": (
        "cases[0].budgets_ms[1] is -3.0; expected milliseconds greater than 0, e.g. 5.1"
    ),
    "cases.0.budgets_ms=[fast]": (
        "cases[0].budgets_ms[0] is 'fast'; "
        'expected milliseconds, e.g. 5.1, or a percentage, e.g. "80%"'
    ),
    "cases.0.budgets_ms=[]": (
        'cases[0].budgets_ms is []; expected at least one, e.g. [0.35] or ["80%"]'
    ),
    "cases.0.target=phone": (
        "cases[0].target is 'phone'; expected one of cpu, gpu, mobile, pixel1, or one under targets"
    ),
    "cases=[]": "cases is []; expected at least one target with its budgets",
    "search.strategy=two_paht": (
        "search.strategy is 'two_paht'; expected one of 'two_path', 'full_path', 'reinforce', "
        "'darts', 'random', 'evolution', 'rl_trials'; did you mean 'two_path'?"
    ),
    "data.source=digit": (
        "data.source is 'digit'; expected one of 'digits', 'glyphs', 'imagefolder', 'parquet'; "
        "did you mean 'digits'?"
    ),
    "data.glyphs.classes=63": "data.glyphs.classes is 63; expected 2 to 62 characters",
    "data.glyphs.test=10": ("data.glyphs.test is 10; expected 64 images or more, four per class"),
    "data.glyphs.noise=2.0": "data.glyphs.noise is 2.0; expected 0 to 1, e.g. 0.05",
    "data.glyphs.shift=0.6": "data.glyphs.shift is 0.6; expected 0 to 0.5",
    "data.glyphs.rotations=1": ("data.glyphs.rotations is not a setting; did you mean 'rotation'?"),
    "data.path=here": (
        "data.path is 'here'; expected no path, since these images ship with a library; own "
        "images are source: imagefolder"
    ),
    "space.ops=[mbconv_k3_e6, mbconv_k4_e6]": (
        f"space.ops[1] is 'mbconv_k4_e6'; expected one of {', '.join(OPS)}"
    ),
    "cases.0.baseline=mobilenet_v2": (
        "cases[0].baseline is 'mobilenet_v2'; expected no baseline beside budgets_ms; "
        "make an entry of its own of it"
    ),
    "cases=[{target: mobile, architecture: proxyless_tablet}]": (
        "cases[0].architecture is 'proxyless_tablet'; expected a file that ends in .json, or one "
        f"of {', '.join(published.NAMES)}"
    ),
    "cases=[{target: mobile, architecture: 'my net.json'}]": (
        "cases[0].architecture is 'my net.json'; expected a file named with letters, digits, '_', "
        "'-' and '.', since it names the case"
    ),
    "cases=[{target: mobile, budgets_ms: [0.3]}, {target: mobile, budgets_ms: [0.5, 0.3]}]": (
        "cases[1].budgets_ms[1] is 0.3; expected each network once; cases[0].budgets_ms[0] is the "
        "same"
    ),
    "cases=[{target: mobile, baseline: mnasnet}, {target: mobile, baseline: mnasnet}]": (
        "cases[1].baseline is 'mnasnet'; expected each network once; cases[0].baseline is the same"
    ),
    "search.ranking_networks=4": (
        "search.ranking_networks is 4; expected 0, or a retrain section: it says how those "
        "networks are trained alone"
    ),
    "name=a/b": (
        "name is 'a/b'; expected letters, digits, '_', '-' and single '.', "
        "since it names a folder, e.g. search_mobile"
    ),
    "storage=''": "storage is ''; expected a folder, e.g. ~/proxyless",
    "cluster.workers=many": "cluster.workers is 'many'; expected a whole number or a list or one "
    "of 'auto'",
    "cluster.workers=0": "cluster.workers is 0; expected 'auto', a number of 1 or more, or the "
    "least and the most, e.g. [1, 4]",
}


@pytest.mark.parametrize(("override", "complaint"), WRONG.items())
def test_what_is_wrong_is_named_in_one_line(job_file: Path, override: str, complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_job(job_file, [override])
    assert str(caught.value) == f"{job_file}: {complaint}"


@pytest.mark.parametrize("name", ["..", "a..b", "../a", "/a", "", ".a", "a b"])
def test_a_name_that_is_no_folder_is_refused(job_file: Path, name: str) -> None:
    with pytest.raises(SpecError, match="since it names a folder"):
        load_job(job_file, [f"name={name!r}"])


def test_a_missing_section_is_named_with_an_example(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: x\n")
    with pytest.raises(SpecError, match=r"data is missing; .* e.g. data: \{source: digits\}"):
        load_job(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: a\n b: [\n", "line 2, column 3: not YAML"),
        ("name: a\nname: b\n", "the key 'name' stands twice"),
        ("- 1\n", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_a_file_that_is_no_job_is_refused_with_the_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=complaint):
        load_job(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none.yaml: cannot be read: No such file"):
        load_job(tmp_path / "none.yaml")


def test_a_number_in_scientific_notation_is_a_number(job_file: Path) -> None:
    job_file.write_text(job_file.read_text() + "search: {alpha_lr: 5e-2}\n")
    assert load_job(job_file).search.alpha_lr == 0.05


@pytest.mark.parametrize("override", ["epochs", "=3", "cases.7.target=x", "name.x.y=1"])
def test_an_override_that_fits_nowhere_is_refused(job_file: Path, override: str) -> None:
    with pytest.raises(SpecError):
        load_job(job_file, [override])
