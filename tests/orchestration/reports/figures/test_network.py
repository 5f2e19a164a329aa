from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from nas_core.architecture import Architecture
from nas_core.latency import OpSignature
from nas_core.published import architecture
from nas_core.published.pixel1 import table
from nas_core.space import proxyless_imagenet
from orchestration.reports.figures.network import (
    Part,
    architecture_png,
    architecture_text,
    draw_architecture,
    latency_text,
    parts,
)
from tests.support.job_folder import OPS, SPACE, latency_table

ARCHITECTURE = Architecture(SPACE, OPS)
TABLE = latency_table()


def picture(architecture, table=None):
    values = None if table is None else table.to_dict()
    return Image.open(io.BytesIO(architecture_png(architecture.to_dict(), values)))


def test_times_of_the_parts_add_up_to_the_latency_of_the_network():
    times = [part.ms for part in parts(ARCHITECTURE.to_dict(), TABLE.to_dict())]
    assert sum(times) == pytest.approx(TABLE.latency_ms(ARCHITECTURE))


def test_shares_add_up_to_one():
    shares = [part.share for part in parts(ARCHITECTURE.to_dict(), TABLE.to_dict())]
    assert sum(shares) == pytest.approx(1)


def test_kernel_and_expansion_are_read_from_the_op():
    result = [(part.kernel, part.expansion) for part in parts(ARCHITECTURE.to_dict(), None)]
    none = (None, None)
    assert result == [none, (3, 3), (5, 3), (3, 6), none, (7, 3), (3, 3), none]


@pytest.mark.parametrize(
    ("op", "label"),
    [
        ("mbconv_k3_e6", "3x3\ne6"),
        ("mbconv_k5_e3_se", "5x5\ne3 se"),
        ("mbconv_k7_e3_hswish", "7x7\ne3 hswish"),
        ("sepconv_k5", "5x5\nsep"),
        ("stem", "stem"),
    ],
)
def test_a_block_says_what_tells_its_op_from_others(op, label):
    assert Part("stage1.0", OpSignature(op, 8, 8, 1, 32), None, None).label == label


def test_a_network_is_drawn_by_a_table_of_offsets_too():
    network = architecture("proxyless_mobile")  # some of its offsets are below 0
    shown = picture(network, table(network.space))
    assert shown.height > 0
    text = architecture_text(network.to_dict(), table(network.space).to_dict())
    assert "-9.74" in text  # a skip has an offset


def test_the_text_has_a_line_for_every_part():
    lines = architecture_text(ARCHITECTURE.to_dict(), TABLE.to_dict()).splitlines()
    names = [line.split()[0] for line in lines]
    assert names == ["site", "stem", *(site.name for site in SPACE.sites), "head", "network"]


def test_the_whole_network_costs_its_parts_and_the_offset_of_the_fit():
    fitted = replace(TABLE, scale=2.0, offset_ms=0.5)
    ms = 2 * TABLE.latency_ms(ARCHITECTURE) + 0.5
    text = latency_text(ARCHITECTURE.to_dict(), fitted.to_dict())
    assert text.startswith(f"{ms:.3f} ms by the table of mobile on host")
    assert text.endswith(": its parts and +0.500 ms for the whole")


def test_the_text_does_without_a_table():
    assert "ms" not in architecture_text(ARCHITECTURE.to_dict(), None)


def test_the_picture_is_opaque():
    alpha = picture(ARCHITECTURE, TABLE).convert("RGBA").getchannel("A")
    assert alpha.getextrema() == (255, 255)


def test_a_larger_kernel_is_seen():
    other = Architecture(SPACE, ("mbconv_k7_e3", *OPS[1:]))
    assert picture(other).tobytes() != picture(ARCHITECTURE).tobytes()


def test_a_long_network_takes_more_rows_of_the_same_width():
    long = picture(Architecture.reference(proxyless_imagenet()))
    short = picture(ARCHITECTURE)
    assert long.width == short.width
    assert long.height > 1.5 * short.height


def test_a_table_without_an_op_is_an_error_that_names_it():
    values = TABLE.to_dict()
    values["rows"] = [row for row in values["rows"] if row["op"] != "mbconv_k7_e3"]
    with pytest.raises(ValueError, match=r"'mbconv_k7_e3' at 'stage3.0'"):
        architecture_png(ARCHITECTURE.to_dict(), values)


def test_the_picture_is_written_as_png(tmp_path):
    draw_architecture(ARCHITECTURE.to_dict(), None, tmp_path / "network.png", title="mobile")
    with Image.open(tmp_path / "network.png") as image:
        assert image.format == "PNG"
