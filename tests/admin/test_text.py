"""Numbers as people read them."""

from __future__ import annotations

from coopshm.admin import text


def test_sizes_ages_and_shares_are_short() -> None:
    assert [text.size(n) for n in (0, 1023, 1024, 1048575, 1 << 40, 1 << 60)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 TiB", "1048576.0 TiB",
    ]  # fmt: skip
    assert [text.age(s) for s in (0.0042, 59.94, 61, 3661, 90000)] == [
        "4 ms", "59.9 s", "1 min 1 s", "1 h 1 min", "1 d 1 h",
    ]  # fmt: skip
    assert [text.percent(*of) for of in ((0, 10), (1, 10**6), (1, 3), (10, 10))] == [
        "0.0 %",
        "<0.1 %",
        "33.3 %",
        "100.0 %",
    ]
