"""Images in memory: decoding, the fixed split, and batches in counted order.

The test part is read once per network, after its last epoch. Search uses the rest as a weight and
an architecture part, retraining uses both. Shapes: N images, C channels, H and W pixels.
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
    """Decode or render a source and split off its test part.

    Args:
        settings: which images.
        seed: of the split; glyphs have a seed of their own.
        storage: where rendered images are kept for the next time, if anywhere.
        facts: of the source, if the driver has described it: it is not described again, and images
            that are read are compared with them.

    Raises:
        SpecError: an image cannot be decoded, a part would be without a class, or the images are
            not those of the facts.
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
    """Render or decode what takes long, so that `load_dataset` finds it in storage."""
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
    """Split off `share` of every class, at least one image of each and never all.

    Where images have groups, as many of the groups are split off, at least one and never all. Where
    they have hashes of keys, these decide, whatever seed and purpose are: then `test_share` says
    which of them were in the test part.

    Returns:
        The part split off, and the rest; both in the order of `whole`.
    """
    if whole.hashes is not None:
        chosen = torch.from_numpy(
            is_architecture(whole.hashes.numpy().view(np.uint64), share, test_share)
        )
        return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())
    if whole.groups is not None:
        groups = torch.tensor(sorted(set(whole.groups.tolist())))
        chosen = torch.isin(whole.groups, _some_of(groups, share, generator(seed, purpose)))
        return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())
    chosen = torch.zeros(len(whole), dtype=torch.bool)
    for label in sorted(set(whole.labels.tolist())):
        members = (whole.labels == label).nonzero().flatten()
        chosen[_some_of(members, share, generator(seed, purpose, label))] = True
    return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())


def _some_of(members: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """At least one of the members, and not all."""
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
    """A part of the glyphs: from storage, else rendered and kept there."""
    key = images_file(data_folder(facts.fingerprint), part)
    kept = None if storage is None else storage.find_bytes(key)
    if kept is not None:
        found = Glyphs(**tensors_from_bytes(kept))
    else:
        facts.check_unchanged(describe(settings).fingerprint)  # other libraries draw other images
        asked = settings.glyphs
        count = asked.test if part == "test" else asked.train
        found = render(asked, part, count, settings.resolution, settings.channels or 1)
        if storage is not None:
            storage.write_bytes(key, tensors_to_bytes(**found._asdict()))
    groups = found.fonts if settings.glyphs.separate_fonts else None
    return ImageSet(found.images, found.labels, groups)


def _load_folder(
    settings: DataSettings, facts: DataFacts | None
) -> tuple[ImageSet, tuple[str, ...]]:
    files, seen = class_files(settings), FolderFingerprint()
    images, labels = [], []
    for label, (name, paths) in enumerate(files.items()):
        for path in paths:
            content = path.read_bytes()
            seen.add(name, path, content)
            try:
                image = decode_image(content, settings.channels or 3, settings.resolution)
            except ValueError as error:
                raise SpecError(f"data.path: {path} is {error}; mend or remove the file") from None
            images.append(image)
            labels.append(label)
    if facts is not None:
        facts.check_unchanged(seen.text)
    return ImageSet(torch.stack(images), torch.tensor(labels)), tuple(files)
