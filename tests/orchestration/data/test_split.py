"""Split by key: stable parts of about the requested size, independent of other images."""

from __future__ import annotations

import numpy as np

from orchestration.data.split import hashes_of, is_architecture, is_test

KEYS = [f"class/{number}.jpg" for number in range(20_000)]


def test_hashes_are_the_same_for_ever() -> None:
    # From `printf %s KEY | b2sum -l 64`.
    assert hashes_of(["a", "cats/1.jpg", "Ä"]).tolist() == [
        4681665781835383343,
        4425966198476191418,
        15878289296149366474,
    ]
    assert len(hashes_of([])) == 0


def test_parts_have_about_the_share_that_was_asked_for() -> None:
    hashes = hashes_of(KEYS)
    test = is_test(hashes, 0.25)
    assert abs(test.mean() - 0.25) < 0.01
    held = is_architecture(hashes, 0.4, test_share=0.25)
    assert not (held & test).any()
    assert abs(held[~test].mean() - 0.4) < 0.02


def test_parts_are_stretches_of_what_is_ordered_by_hash() -> None:
    hashes = np.sort(hashes_of(KEYS))
    for part in (is_test(hashes, 0.25), is_architecture(hashes, 0.4, test_share=0.25)):
        places = np.flatnonzero(part)
        assert places[-1] - places[0] + 1 == len(places)


def test_an_image_stays_in_its_part_whatever_others_there_are() -> None:
    hashes = hashes_of(KEYS)
    some = np.arange(0, len(KEYS), 7)
    assert (is_test(hashes, 0.2)[some] == is_test(hashes[some], 0.2)).all()
    assert (
        is_architecture(hashes, 0.5, 0.2)[some] == is_architecture(hashes[some], 0.5, 0.2)
    ).all()


def test_a_larger_share_holds_the_smaller_one() -> None:
    hashes = hashes_of(KEYS)
    assert (is_test(hashes, 0.3) >= is_test(hashes, 0.2)).all()
