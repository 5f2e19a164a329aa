from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from torch import nn

from orchestration.cli.predict import Prediction, predict
from orchestration.config.storage_layout import MODEL_FACTS_FILE
from orchestration.programs.export import ModelFacts, save_model

CLASSES = ("dark", "middle", "bright")


class Brightness(nn.Module):
    """A model whose logits are largest for the class with the nearest grey level (0, 0.5, 1)."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("levels", (torch.tensor([0.0, 0.5, 1.0]) - mean) / std)

    def forward(self, images):
        return -10 * (images.mean(dim=(1, 2, 3))[:, None] - self.levels).abs()


def brightness_facts(channels=1, is_cropped=False):
    return ModelFacts(
        classes=CLASSES,
        input_shape=(channels, 8, 8),
        mean=(0.3,) * channels,
        std=(0.4,) * channels,
        architecture={},
        is_cropped=is_cropped,
    )


def save(folder, channels=1, is_cropped=False):
    """Write facts only: the program is Brightness itself, since exporting takes seconds."""
    folder.mkdir(exist_ok=True)
    facts = brightness_facts(channels, is_cropped)
    (folder / MODEL_FACTS_FILE).write_text(json.dumps(facts.to_dict()))
    return folder


def load(folder):
    facts = ModelFacts.from_dict(json.loads((folder / MODEL_FACTS_FILE).read_text()))
    return Brightness(0.3, 0.4), facts


@pytest.fixture(autouse=True)
def _not_exported(request, monkeypatch):
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("orchestration.cli.predict.load_model", load)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"))


def image(path, grey, mode="L", size=(20, 12)):
    Image.new("L", size, grey).convert(mode).save(path)
    return path


@pytest.mark.parametrize(("grey", "name"), [(0, "dark"), (128, "middle"), (255, "bright")])
def test_pixels_are_normalised_as_for_training(model, tmp_path, grey, name):
    predictions = predict(model, [image(tmp_path / "image.png", grey)])
    assert predictions[0].top[0][0] == name


@pytest.mark.parametrize(
    ("name", "mode"),
    [("grey.png", "L"), ("colour.jpg", "RGB"), ("alpha.png", "RGBA"), ("palette.gif", "P")],
)
def test_any_kind_of_image_is_brought_to_the_channels_of_the_model(model, tmp_path, name, mode):
    predictions = predict(model, [image(tmp_path / name, 250, mode)])
    assert predictions[0].top[0][0] == "bright"


def test_a_grey_image_goes_into_a_colour_model(tmp_path):
    predictions = predict(save(tmp_path / "model", channels=3), [image(tmp_path / "image.png", 4)])
    assert predictions[0].top[0][0] == "dark"


def test_probabilities_are_sorted_and_add_up(model, tmp_path):
    top = predict(model, [image(tmp_path / "image.png", 100)])[0].top
    probabilities = [probability for _, probability in top]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "is_cropped"), [(1, False), (3, False), (3, True)])
def test_a_model_that_was_exported_classifies_an_image(tmp_path, channels, is_cropped):
    facts, example = brightness_facts(channels, is_cropped), torch.randn(2, channels, 8, 8)
    save_model(Brightness(0.3, 0.4), example, facts, tmp_path / "model")
    predictions = predict(tmp_path / "model", [image(tmp_path / "image.png", 255)])
    assert predictions[0].top[0][0] == "bright"


def test_no_more_classes_than_asked_for(model, tmp_path):
    assert len(predict(model, [image(tmp_path / "image.png", 0)], top=1)[0].top) == 1


def test_files_that_are_no_images_are_named_and_the_others_classified(model, tmp_path):
    (text := tmp_path / "notes.txt").write_text("hello")
    whole = image(tmp_path / "whole.png", 0, size=(200, 200))
    (cut := tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    missing = tmp_path / "missing.png"
    predictions = predict(model, [text, whole, cut, missing, tmp_path])
    assert [bool(prediction.error) for prediction in predictions] == [True, False, True, True, True]
    for prediction in predictions:
        assert str(prediction.path) in prediction.line()
        assert "\n" not in prediction.line()


def test_a_prediction_is_one_line(tmp_path):
    prediction = Prediction(path=tmp_path / "a.png", top=(("cat", 0.971), ("dog", 0.02)))
    assert prediction.line() == f"{tmp_path}/a.png  cat 97.1 %  dog 2.0 %"


def test_a_model_that_saw_the_middle_of_images_sees_it_again(tmp_path):
    framed = Image.new("L", (32, 32), 255)  # white around a black middle
    framed.paste(0, (4, 4, 28, 28))
    framed.save(tmp_path / "framed.png")
    whole, middle = save(tmp_path / "whole"), save(tmp_path / "middle", is_cropped=True)
    names = [predict(model, [tmp_path / "framed.png"])[0].top[0][0] for model in (whole, middle)]
    assert names == ["middle", "dark"]
