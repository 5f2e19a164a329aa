"""Load a data source into memory and split it.

The test part is used once per network, after its last epoch. Search splits the training images into
a weight and an architecture part; retraining uses both.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cluster.storage import Storage
from nas_core.randomness import generator
from orchestration.config.data import DataSettings
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import data_folder, images_file
from orchestration.data.dataset import PARTS, Dataset, ImageSet
from orchestration.data.decode import decode_image, resize
from orchestration.data.glyphs import Glyphs, render
from orchestration.data.info import DataFacts
from orchestration.data.npz import tensors_from_bytes, tensors_to_bytes
from orchestration.data.sources import FolderFingerprint, class_files, describe
from orchestration.data.split import is_architecture


def load_dataset(
    settings: DataSettings,
    seed: int,
    storage: Storage | None = None,
    facts: DataFacts | None = None,
) -> Dataset:
    """Load a data source: decode or render its images, and split off the test part.

    Args:
        settings: the `data:` section of the job.
        seed: seed of the split. Glyphs have a seed of their own.
        storage: cache for rendered and decoded images. None: no cache.
        facts: facts about the source that the driver computed. Images are checked against them
            while they are read. None: the source is inspected again instead.

    Raises:
        SpecError: an image cannot be decoded, a part would have no image of some class, or the
            images differ from `facts`.
    """
    if settings.source == "glyphs":
        facts = facts or describe(settings)
        train, test = (_glyphs(settings, part, storage, facts) for part in PARTS)
        return Dataset(train, test, facts.classes)
    if settings.source == "parquet":
        from orchestration.data.parquet.in_memory import load_parquet

        facts = facts or describe(settings)
        return Dataset(*load_parquet(settings, storage, facts), facts.classes)
    if settings.source == "digits":
        whole, classes = _load_digits(settings)
    else:
        whole, classes = _load_folder(settings, facts)
    test, train = split_classes(whole, settings.test_share, seed, "test split")
    return Dataset(train, test, classes)


def keep_images(settings: DataSettings, storage: Storage, facts: DataFacts | None = None) -> None:
    """Fill the cache of `load_dataset`: store rendered glyphs or decoded Parquet images.

    Other sources are not cached.
    """
    facts = facts or describe(settings)
    if settings.source == "parquet":
        from orchestration.data.parquet.in_memory import load_parquet

        load_parquet(settings, storage, facts)
    if settings.source == "glyphs":
        for part in PARTS:
            _glyphs(settings, part, storage, facts)


def split_classes(
    whole: ImageSet, share: float, seed: int, purpose: str, test_share: float = 0.0
) -> tuple[ImageSet, ImageSet]:
    """Split off `share` of every class: at least one image of each class, and never all.

    Images with groups are split by group: `share` of the groups is split off, at least one, and
    never all. Images with key hashes are split by hash; see `split.py`.

    Args:
        whole: the images to split.
        share: fraction to split off.
        seed: seed of the random choice; not used for images with key hashes.
        purpose: name of the split, so that splits with the same seed are independent; not used for
            images with key hashes.
        test_share: fraction of all images in the test part, which is already removed from `whole`;
            used for images with key hashes only.

    Returns:
        The part that is split off, and the rest; both in the order of `whole`.
    """
    if whole.hashes is not None:
        chosen = torch.from_numpy(
            is_architecture(whole.hashes.numpy().view(np.uint64), share, test_share)
        )
        return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())
    if whole.groups is not None:
        groups = torch.tensor(sorted(set(whole.groups.tolist())))
        chosen = torch.isin(whole.groups, _random_subset(groups, share, generator(seed, purpose)))
        return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())
    chosen = torch.zeros(len(whole), dtype=torch.bool)
    for label in sorted(set(whole.labels.tolist())):
        members = (whole.labels == label).nonzero().flatten()
        chosen[_random_subset(members, share, generator(seed, purpose, label))] = True
    return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())


def _random_subset(members: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Random subset that holds `share` of the members: at least one, and not all."""
    count = min(max(1, round(share * len(members))), len(members) - 1)
    return members[torch.randperm(len(members), generator=rng)[:count]]


def _load_digits(settings: DataSettings) -> tuple[ImageSet, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # 8x8, 0 to 16
    images = resize(grey, settings.resolution).expand(-1, settings.channels or 1, -1, -1)
    labels = torch.from_numpy(digits.target).long()
    return ImageSet(images.contiguous(), labels), tuple(str(name) for name in digits.target_names)


def _glyphs(
    settings: DataSettings, part: str, storage: Storage | None, facts: DataFacts
) -> ImageSet:
    """Load the glyphs of a part from storage; render and store them if they are missing."""
    key = images_file(data_folder(facts.fingerprint), part)
    stored = None if storage is None else storage.find_bytes(key)
    if stored is not None:
        glyphs = Glyphs(**tensors_from_bytes(stored))
    else:
        # The fingerprint covers library versions: another version may render different images.
        facts.check_unchanged(describe(settings).fingerprint)
        count = settings.glyphs.test if part == "test" else settings.glyphs.train
        glyphs = render(settings.glyphs, part, count, settings.resolution, settings.channels or 1)
        if storage is not None:
            storage.write_bytes(key, tensors_to_bytes(**glyphs._asdict()))
    groups = glyphs.fonts if settings.glyphs.separate_fonts else None
    return ImageSet(glyphs.images, glyphs.labels, groups)


def _load_folder(
    settings: DataSettings, facts: DataFacts | None
) -> tuple[ImageSet, tuple[str, ...]]:
    files, fingerprint = class_files(settings), FolderFingerprint()
    images, labels = [], []
    for label, (name, paths) in enumerate(files.items()):
        for path in paths:
            content = path.read_bytes()
            fingerprint.add(name, path, content)
            try:
                image = decode_image(content, settings.channels or 3, settings.resolution)
            except ValueError as error:
                raise SpecError(f"data.path: {path} is {error}; mend or remove the file") from None
            images.append(image)
            labels.append(label)
    if facts is not None:
        facts.check_unchanged(fingerprint.text)
    return ImageSet(torch.stack(images), torch.tensor(labels)), tuple(files)
