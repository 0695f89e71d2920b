"""Which signs of a text may be shown, and which nobody would see."""

from __future__ import annotations

import pytest

from kbench.data.plain_text import plain, steers


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "caf\u00e9",
        "\u65e5\u672c",
        "\u05e2\u05d1\u05e8\u05d9\u05ea",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian parts letters without a blank
        "\u0915\u094d\u200d\u0937",  # Hindi joins them
        "\u2764\ufe0f",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f3f3\ufe0f\u200d\U0001f308",
        "\u845b\U000e0100",  # another form of an ideograph
        "\u05e9\u05dc\u05d5\u05dd\u200f!",  # Hebrew has its mark after it
    ],
)
def test_what_a_script_or_a_picture_needs_is_shown(text: str) -> None:
    assert not steers(text)
    assert plain(text) == text


@pytest.mark.parametrize(
    "sign",
    [
        *("\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u2060", "\u2064", "\u00ad", "\u034f"),
        *("\u115f", "\u1160", "\u17b4", "\u180e", "\u3164", "\uffa0", "\ufe00", "\ufe0f"),
        *("\U000e0001", "\U000e0100", "\U0001d173", "\ufff0"),
    ],
)
def test_a_name_with_a_sign_that_nobody_sees_is_not_that_name(sign: str) -> None:
    assert steers(f"bert{sign}-large")
    assert plain(f"bert{sign}-large") == "bert\ufffd-large"
    assert steers(sign)
