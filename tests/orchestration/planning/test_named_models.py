"""Networks that a job names: loaded for the images of the job, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_core.architecture import Architecture
from nas_core.baselines.registry import Baseline
from nas_core.published import architecture
from nas_core.space import SearchSpace, proxyless_imagenet, proxyless_small
from orchestration.config.cases import CaseSettings
from orchestration.config.loading import SpecError
from orchestration.planning.named_models import named_model, table_latency_ms, total_stride
from tests.support.latency_tables import by_kernel, table_of

SPACE = proxyless_small()


def written(folder: Path, space: SearchSpace = SPACE) -> CaseSettings:
    path = folder / "my.json"
    path.write_text(Architecture.reference(space).to_json())
    return CaseSettings(target="mobile", architecture=str(path))


def test_a_search_names_no_model() -> None:
    assert named_model(CaseSettings(target="mobile", budgets_ms=(0.3,)), SPACE, "cases[0]") is None


def test_a_baseline_is_for_the_images_of_the_job() -> None:
    model = named_model(CaseSettings(target="mobile", baseline="mnasnet"), SPACE, "cases[0]")
    assert isinstance(model, Baseline)
    assert (model.in_channels, model.resolution, model.classes) == (1, 32, 10)


def test_a_published_network_is_for_the_images_of_the_job() -> None:
    settings = CaseSettings(target="mobile", architecture="proxyless_gpu")
    model = named_model(settings, SPACE, "cases[0]")
    assert model == architecture("proxyless_gpu", classes=10, in_channels=1, resolution=32)


def test_a_file_is_read(tmp_path: Path) -> None:
    assert named_model(written(tmp_path), SPACE, "cases[0]") == Architecture.reference(SPACE)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (proxyless_small(classes=7), "images of 1x32x32 in 7 classes"),
        (proxyless_small(in_channels=3), "images of 3x32x32 in 10 classes"),
        (proxyless_small(resolution=16), "images of 1x16x16 in 10 classes"),
    ],
)
def test_an_architecture_for_other_images_is_refused_naming_both(
    tmp_path: Path, space: SearchSpace, said: str
) -> None:
    text = rf"cases\[3\].architecture: .*my.json is for {said}, but the data has images of 1x32x32"
    with pytest.raises(SpecError, match=text):
        named_model(written(tmp_path, space), SPACE, "cases[3]")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file"),
        ("hello", "Expecting value"),
        ("[]", "not an architecture"),
        ('{"format": "baseline/1"}', "not an architecture of format 'architecture/1'"),
    ],
)
def test_a_file_that_holds_no_architecture_is_refused(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "my.json"
    if content is not None:
        path.write_text(content)
    settings = CaseSettings(target="mobile", architecture=str(path))
    with pytest.raises(SpecError, match=f"my.json:? {complaint}"):
        named_model(settings, SPACE, "cases[0]")


def test_a_member_of_the_space_has_a_latency_by_its_table() -> None:
    table = table_of(SPACE, by_kernel)
    assert table_latency_ms(Architecture.reference(SPACE), table) == table.reference_ms


@pytest.mark.parametrize("model", [Baseline("mobilenet_v2"), architecture("proxyless_cpu")])
def test_what_is_no_member_of_the_space_has_none(model: Architecture | Baseline) -> None:
    assert table_latency_ms(model, table_of(SPACE, by_kernel)) is None


def test_total_strides_multiply_over_the_network() -> None:
    assert total_stride(Architecture.reference(SPACE)) == 4  # two stages halve the image
    assert total_stride(Architecture.reference(proxyless_imagenet())) == 32
    assert total_stride(Baseline("mobilenet_v2")) == 32
    assert total_stride(Baseline("mobilenet_v2", 1, 32, 10, (1, 2, 2, 1, 1))) == 4
