"""The `space:` section: built-in spaces, chains, and errors."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nas_core.architecture import Architecture
from nas_core.published.pixel1 import table
from nas_core.space import SearchSpace, proxyless_imagenet, proxyless_small
from orchestration.config.job import Job
from orchestration.config.loading import SpecError, check_job, load_job

SMALL = """
  stem: {channels: 16, stride: 1}
  stages:
    - {width: 24, blocks: 2, stride: 2}
    - {width: 32, blocks: 2, stride: 2}
    - {width: 48, blocks: 2}
  kernels: [3, 5, 7]
  expansions: [3, 6]
  head: 192
"""
"""The chain of proxyless_small."""

IMAGENET = """
  stem: {channels: 32, first_channels: 16}
  stages:
    - {width: 32, blocks: 4, stride: 2}
    - {width: 40, blocks: 4, stride: 2}
    - {width: 80, blocks: 4, stride: 2}
    - {width: 96, blocks: 4}
    - {width: 192, blocks: 4, stride: 2}
    - {width: 320, blocks: 1}
  kernels: [3, 5, 7]
  expansions: [3, 6]
  head: 1280
"""
"""The chain of proxyless_imagenet."""


def with_space(job_file: Path, space: str | dict[str, Any]) -> Path:
    """The job file with this `space:` section."""
    job = yaml.safe_load(job_file.read_text())
    job["space"] = yaml.safe_load(space) if isinstance(space, str) else space
    job_file.write_text(yaml.safe_dump(job))
    return job_file


def small(**change: Any) -> dict[str, Any]:
    """The settings of `SMALL` with changes; None removes a setting."""
    values = {**yaml.safe_load(SMALL), **change}
    return {key: value for key, value in values.items() if value is not None}


def built(job_file: Path, space: str | dict[str, Any], **images: int) -> SearchSpace:
    section = load_job(with_space(job_file, space)).space
    return section.build(**{"classes": 10, "in_channels": 1, "resolution": 32, **images})


def test_a_job_that_says_nothing_searches_the_small_space(job_file: Path) -> None:
    assert load_job(job_file).space.build(10, 1, 32) == proxyless_small()


def test_a_chain_spelled_out_is_the_known_space_under_another_name(job_file: Path) -> None:
    assert built(job_file, SMALL) == replace(proxyless_small(), name="chain")


def test_the_published_space_can_be_spelled_out(job_file: Path) -> None:
    space = built(job_file, IMAGENET, classes=1000, in_channels=3, resolution=224)
    assert space.size() == 6**6 * 7**15
    assert space == replace(proxyless_imagenet(), name="chain")


def test_a_chain_like_the_published_space_has_latencies_on_a_pixel_1(job_file: Path) -> None:
    space = built(job_file, IMAGENET, classes=1000, in_channels=3, resolution=224)
    latency_ms = table(space).latency_ms(Architecture.uniform(space, "mbconv_k7_e6"))
    assert latency_ms == pytest.approx(209.1, abs=0.05)


def test_a_known_space_takes_a_width_and_a_first_stage(job_file: Path) -> None:
    section = {"name": "proxyless_imagenet", "width": 1.35, "first_stage": 24, "bn_eps": 1e-5}
    space = built(job_file, section, classes=1000, in_channels=3, resolution=224)
    assert space == proxyless_imagenet(width=1.35, first_stage=24, bn_eps=1e-5)


def test_a_chain_may_have_a_name_of_its_own(job_file: Path) -> None:
    assert built(job_file, small(name="mine")).name == "mine"


def test_a_chain_without_skip_has_all_of_its_sites(job_file: Path) -> None:
    assert built(job_file, small(skip=False)).size() == 6**6


def test_a_chain_may_list_its_ops(job_file: Path) -> None:
    ops = ["mbconv_k3_e6_se", "sepconv_k3", "skip"]
    space = built(job_file, small(kernels=None, expansions=None, ops=ops))
    assert space.sites[0].ops == ("mbconv_k3_e6_se", "sepconv_k3")
    assert space.sites[1].ops == tuple(ops)


@pytest.mark.parametrize(
    ("change", "reference"),
    [
        ({}, "mbconv_k3_e6"),
        ({"kernels": [5, 7], "expansions": [6]}, "mbconv_k5_e6"),
        ({"kernels": None, "expansions": None, "ops": ["skip", "sepconv_k5", "sepconv_k3"]}, None),
        ({"reference_op": "mbconv_k7_e3"}, "mbconv_k7_e3"),
    ],
)
def test_the_reference_op_is_the_usual_one_or_the_first_candidate_but_skip(
    job_file: Path, change: dict[str, Any], reference: str | None
) -> None:
    assert built(job_file, small(**change)).reference_op == (reference or "sepconv_k5")


def test_a_network_of_a_chain_answers(job_file: Path) -> None:
    space = built(job_file, small(resolution=32, classes=10))
    logits = Architecture.reference(space).build().eval()(torch.zeros(2, 1, 32, 32))
    assert logits.shape == (2, 10)


@pytest.mark.parametrize("space", [SMALL, IMAGENET, "{name: proxyless_imagenet, first_stage: 24}"])
def test_a_job_with_a_space_survives_being_sent_to_a_worker(job_file: Path, space: str) -> None:
    job = load_job(with_space(job_file, space))
    assert check_job(asdict(job), "job") == job


def test_one_stage_of_a_chain_can_be_overridden(job_file: Path) -> None:
    job: Job = load_job(with_space(job_file, SMALL), ["space.stages.1.width=40"])
    assert job.space.stages is not None
    assert [stage.width for stage in job.space.stages] == [24, 40, 48]


def test_images_of_another_size_are_refused_with_the_way_out(job_file: Path) -> None:
    message = "resolution is 64, but data.resolution is 32; set data.resolution to 64, or leave"
    with pytest.raises(ValueError, match=message):
        built(job_file, small(resolution=64))


def test_another_number_of_classes_is_refused_with_the_way_out(job_file: Path) -> None:
    with pytest.raises(ValueError, match="classes is 12, but the data has 10; leave it out"):
        built(job_file, small(classes=12))


def stage(**change: Any) -> list[dict[str, Any]]:
    first = {"width": 24, "blocks": 2, "stride": 2}
    second = {key: value for key, value in {**first, **change}.items() if value is not None}
    return [first, second]


NEEDS = "stem, stages, head, and kernels with expansions (or ops)"
OWN = "a known space has its own chain, so leave out one or the other"
WRONG: list[tuple[dict[str, Any], str]] = [
    (
        small(stages=stage(widht=24, width=None)),
        "stages[1].widht is not a setting; did you mean 'width'?",
    ),
    (small(stem={"chanels": 8}), "stem.chanels is not a setting; did you mean 'channels'?"),
    (small(kernel=[3]), "kernel is not a setting; did you mean 'kernels'?"),
    (
        small(stages=stage(width=None)),
        "stages[1].width is missing; this part of a job needs 'width', e.g. width: 24",
    ),
    (small(stages=stage(stride=3)), "stages[1].stride is 3; expected 1, or 2 to halve height and"),
    (small(stages=stage(blocks=0)), "stages[1].blocks is 0; expected 1 to 100 sites, e.g. 4"),
    (small(stages=stage(width="x")), "stages[1].width is 'x'; expected a whole number"),
    (small(stages=stage(width=0)), "stages[1].width is 0; expected 1 to 10000 channels, e.g. 24"),
    (small(stages=[]), "stages is []; expected at least one, e.g. stages: [{width: 24, blocks:"),
    (small(stages=5), "stages is 5; expected a list"),
    (small(stem=16), "stem is 16; expected a mapping"),
    (small(stem={"channels": 8, "first_channels": 0}), "stem.first_channels is 0; expected 1 to"),
    (small(head=0), "head is 0; expected 1 to 10000 channels, e.g. 24"),
    (small(head=None), f"head is missing; a space with 'stem' is a chain, which needs {NEEDS}, e"),
    (small(kernels=None), "kernels is missing; a space with 'stem' is a chain, which needs stem, "),
    ({"skip": False}, "stem is missing; a space with 'skip' is a chain, which needs stem, stages"),
    (small(kernels=[3, 4]), "kernels[1] is 4; expected one of 3, 5, 7"),
    (small(expansions=[6, 6]), "expansions is [6, 6]; expected each number once"),
    (small(kernels=[]), "kernels is []; expected at least one, e.g. kernels: [3, 5, 7]"),
    (
        small(kernels=[3], expansions=[6]),
        "kernels and expansions is ['mbconv_k3_e6', 'skip']; expected at least two ops beside 's",
    ),
    (
        small(ops=["mbconv_k3_e6", "mbconv_k3_e3"]),
        "kernels is (3, 5, 7); expected nothing beside ops, which lists all candidates",
    ),
    (
        small(name="proxyless_small"),
        "name is 'proxyless_small'; expected a name of your own beside stem, stages, kernels, "
        f"expansions, head: {OWN}",
    ),
    (small(name=" "), "name is ' '; expected a name, e.g. my_chain"),
    (small(width=0.5), "width is 0.5; expected 1: a chain spells out its channels"),
    (small(first_stage=24), "first_stage is 24; expected nothing beside a chain, whose stages say"),
    (small(reference_op="skip"), "reference_op is 'skip'; expected one of mbconv_k3_e3, mbconv_k"),
    (small(bn_eps=0), "bn_eps is 0.0; expected a number greater than 0, e.g. 1e-3"),
    ({"first_stage": 24}, "first_stage is 24; expected nothing but for proxyless_imagenet"),
    ({"first_stage": 25}, "first_stage is 25; expected one of 24, 32"),
    ({"width": 0}, "width is 0.0; expected a factor above 0 and up to 10, e.g. 1.12"),
    (
        {"name": "mine"},
        "name is 'mine'; expected one of proxyless_imagenet, proxyless_small, or a chain of your "
        f"own with {NEEDS}",
    ),
    ({"ops": ["mbconv_k3_e6", "skip"]}, "ops is ['mbconv_k3_e6', 'skip']; expected at least two "),
    ({"ops": ["sepconv_k3", "sepconv_k4"]}, "ops[1] is 'sepconv_k4'; expected one of mbconv_k3_e3"),
    (
        {"ops": ["sepconv_k3", "sepconv_k5"], "reference_op": "mbconv_k3_e6"},
        "reference_op is 'mbconv_k3_e6'; expected one of sepconv_k3, sepconv_k5",
    ),
]


@pytest.mark.parametrize(("space", "complaint"), WRONG, ids=[text[:30] for _, text in WRONG])
def test_what_is_wrong_in_a_space_is_named_in_one_line(
    job_file: Path, space: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load_job(with_space(job_file, space))
    assert str(caught.value).startswith(f"{job_file}: space.{complaint}")
    assert "\n" not in str(caught.value)
