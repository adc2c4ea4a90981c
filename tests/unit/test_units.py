"""Units as people read and type them."""

import pytest

from dabench.base import units
from dabench.base.errors import clean_line
from dabench.base.files import slug


@pytest.mark.parametrize(("text", "value"), [("512x1024", (512, 1024)), (" 64X32 ", (64, 32))])
def test_sizes(text, value):
    assert units.parse_size(text) == value


@pytest.mark.parametrize("text", ["512", "axb", "-1x4", "4x", "1x2x3", ""])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=r"^"):
        units.parse_size(text)


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.05", 0.05), ("2.5 %", 0.025)])
def test_fractions(text, value):
    assert units.parse_fraction(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("200ms", 0.2), ("1.5min", 90), ("2 h", 7200), ("3s", 3)]
)
def test_durations(text, value):
    assert units.parse_duration(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "soon", "-3", "3 days", "nan"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=r"^"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2345, "1.23 s"), (123.4, "123 s"), (0.0045678, "4.57 ms"), (7.89e-6, "7.89 µs"),
        (3e-9, "3 ns"), (0, "0 ns"), (None, "-"), (float("nan"), "-"), (1234.0, "1234 s"),
        (0.99996, "1 s"), (0.00099996, "1 ms"), (999.7, "1000 s"),
    ],
)  # fmt: skip
def test_seconds(value, text):
    assert units.format_seconds(value) == text


def test_intervals_share_the_larger_unit():
    assert units.format_interval(606e-6, 1.03e-3) == "0.606 to 1.03 ms"
    assert units.format_interval(0.0, 2e-9) == "0 to 2 ns"


@pytest.mark.parametrize(
    ("value", "text"), [(512, "512 B"), (2048, "2 KiB"), (5 << 30, "5 GiB"), (None, "-")]
)
def test_bytes(value, text):
    assert units.format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(15_441_330_176, "15.4 G"), (191_364, "191 k"), (12, "12"), (2e12, "2 T"), (None, "-")],
)
def test_counts(value, text):
    assert units.format_count(value) == text


@pytest.mark.parametrize(
    "text",
    ["\x1b[1;31mred\x1b[0m", "\x1b]0;title\x07red", "\x1b]8;;http://x\x1b\\red\x1b]8;;\x1b\\",
     "\x1b[?25lred\x1b[2K", "\x1b(Bred\x07\x00", "\x9bred"],
)  # fmt: skip
def test_a_line_holds_nothing_that_a_terminal_obeys(text):
    assert clean_line(f"{text}\nmore") == "red"


@pytest.mark.parametrize(
    ("text", "name"),
    [("GTA5 -> Cityscapes", "gta5-to-cityscapes"), ("net.py:build(n=2)", "net-py-build-n-2")],
)
def test_a_text_as_part_of_a_file_name(text, name):
    assert slug(text) == name
