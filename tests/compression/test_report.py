import re

from sklcomp.compression import CompressionReport

BEFORE = {"parameters": 25_557_032, "MACs": 4_089_184_256, "bytes": 102_546_979}


def test_columns_of_any_size_are_apart_and_flush_right():
    after = {row: value // 2 for row, value in BEFORE.items()}
    head, *lines = repr(CompressionReport(BEFORE, after)).splitlines()
    assert re.split("  +", head) == ["", "before", "after", "after / before"]
    for line, (row, value) in zip(lines, BEFORE.items(), strict=True):
        cells = [row, f"{value:,}", f"{after[row]:,}", "0.500"]
        assert re.split("  +", line) == cells
        assert len(line) == len(head)


def test_long_names_do_not_touch_the_numbers():
    before = {"a name of more than fourteen letters": 1.0}
    line = repr(CompressionReport(before, before)).splitlines()[1]
    assert line.startswith("a name of more than fourteen letters  ")
