from __future__ import annotations

import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.space import proxyless_small
from orchestration.programs.export import ModelFacts, load_model, load_program, save_model

SPACE = proxyless_small(resolution=8)
ARCHITECTURE = Architecture(SPACE, ("mbconv_k3_e3", "skip", "mbconv_k5_e3", *["mbconv_k3_e3"] * 3))


def facts(resolution: int = 8) -> ModelFacts:
    return ModelFacts(
        classes=tuple("0123456789"),
        input_shape=(1, resolution, resolution),
        mean=(0.3,),
        std=(0.4,),
        architecture=json.loads(ARCHITECTURE.to_json()),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network whose BatchNorm has seen images, and the folder it was saved to."""
    torch.manual_seed(0)
    network = ARCHITECTURE.build(dropout=0.5)
    network(torch.randn(16, 1, 8, 8))
    folder = tmp_path_factory.mktemp("export") / "model"
    save_model(network, torch.randn(9, 1, 8, 8), facts(), folder)
    return network, folder


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_a_loaded_model_answers_as_the_network_at_any_batch_size(saved, batch):
    network, folder = saved
    run, _ = load_model(folder)
    images = torch.randn(batch, 1, 8, 8)
    with torch.no_grad():
        expected = network.eval()(images)
    torch.testing.assert_close(run(images), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_facts_come_back_as_they_were_saved(saved):
    assert load_model(saved[1])[1] == facts()


@pytest.mark.slow
def test_saving_leaves_the_network_in_training_mode(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    save_model(network, torch.randn(2, 1, 8, 8), facts(), tmp_path)
    assert network.training


@pytest.mark.slow
def test_the_error_of_the_export_is_written_down(saved):
    values = json.loads((saved[1] / "model.json").read_text())
    assert 0 <= values["max_abs_error"] < 1e-3


@pytest.mark.slow
def test_answers_carry_no_gradient(saved):
    assert not load_model(saved[1])[0](torch.randn(1, 1, 8, 8)).requires_grad


def test_one_image_is_not_enough_for_an_example(tmp_path):
    with pytest.raises(ValueError, match="at least two images"):
        save_model(nn.Flatten(), torch.randn(1, 1, 8, 8), facts(), tmp_path)


@pytest.mark.slow
def test_a_network_that_answers_no_numbers_is_not_saved(tmp_path):
    class Broken(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3)) / 0.0 * 0.0

    with pytest.raises(ValueError, match="differs from the network by nan"):
        save_model(Broken(), torch.randn(2, 1, 8, 8), facts(), tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path} has no model.pt2"):
        load_model(tmp_path)


@pytest.mark.slow
def test_a_pickle_in_a_program_is_refused_before_it_runs(saved, tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    source = zipfile.ZipFile(saved[1] / "model.pt2")
    with source, zipfile.ZipFile(tmp_path / "bad.pt2", "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            evil = name.endswith("sample_inputs/model.pt")
            target.writestr(name, pickle.dumps(Payload()) if evil else source.read(name))
    with pytest.raises(ValueError, match="may run code"):
        load_program(tmp_path / "bad.pt2")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_program_is_named(tmp_path):
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(ValueError, match="is no exported program"):
        load_program(tmp_path / "text.pt2")


def test_means_must_match_the_channels():
    with pytest.raises(ValueError, match="1 means and 1 standard deviations for images of 3"):
        ModelFacts(classes=("a",), input_shape=(3, 8, 8), mean=(0.0,), std=(1.0,), architecture={})
