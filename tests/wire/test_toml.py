"""Settings files: units, and mistakes that are named with file, line and key."""

from enum import StrEnum
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from wire.toml import BitsPerSecond, Bytes, Document, Mistake, Seconds, host_and_port, leads_somewhere, size_of


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Struct, forbid_unknown_fields=True):
    name: str
    colour: Colour = Colour.RED
    share: Annotated[float, Meta(ge=0, le=1)] | None = None
    tags: tuple[Annotated[str, Meta(max_length=3)], ...] = ()


class Outer(Struct, forbid_unknown_fields=True):
    size: Bytes = Bytes(0)
    patience: Seconds = Seconds(0)
    rate: BitsPerSecond | None = None
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()


def read(text):
    return Document(text, "it.toml").read(Outer)


def mistake(text):
    with pytest.raises(Mistake) as refused:
        read(text)
    return str(refused.value)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("5", 5),
        ('"5 B"', 5),
        ('"1.5 KiB"', 1536),
        ('"500 GB"', 500 * 10**9),
        ('"2TiB"', 2 * 2**40),
        ('" 1 PB "', 10**15),
    ],
)
def test_sizes(written, size):
    assert read(f"size = {written}").size == size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5", 5), ("0.25", 0.25), ('"250 ms"', 0.25), ('"2 min"', 120), ('"1.5 h"', 5400), ('"7 d"', 604_800)],
)
def test_durations(written, seconds):
    assert read(f"patience = {written}").patience == seconds


@pytest.mark.parametrize(
    ("written", "rate"),
    [("5", 5), ('"5 bit/s"', 5), ('"1.5 kbit/s"', 1500), ('"100 Gbit/s"', 10**11), ('"1 Tbit/s"', 10**12)],
)
def test_rates(written, rate):
    assert read(f"rate = {written}").rate == rate


@pytest.mark.parametrize("key", ["size", "patience", "rate"])
@pytest.mark.parametrize(
    "written", ["-1", '"-1 s"', '"5 XB"', '"lots"', "true", "inf", "nan", '""', "[]", '"1e3 B"', "1979-05-27"]
)
def test_what_is_no_quantity_is_refused_in_words(key, written):
    assert mistake(f"{key} = {written}").startswith(f"it.toml: line 1: {key}: Expected a ")


@pytest.mark.parametrize("written", ['size = "2 EB"', 'patience = "36501 d"', 'rate = "1001 Tbit/s"'])
def test_what_is_beyond_all_reason_is_a_slip_of_the_pen(written):
    assert "Expected a " in mistake(written)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise = 1", "line 1: sise: unknown key 'sise'; allowed here: size, patience, rate, inner, many"),
        ("[inner]\nname = 1", "line 2: inner.name: Expected `str`, got `int`; read 1"),
        (
            '[inner]\nname = "n"\ncolour = "pink"',
            "line 3: inner.colour: not one of the allowed values: red, blue; read",
        ),
        ("[inner]", "line 1: inner: Object missing required field `name`"),
        ('[inner]\nname = "n"\n# share\n\nshare = 2', "line 5: inner.share: Expected `float` <= 1.0; read 2"),
        ('[[many]]\nname = "a"\n[[many]]\nname = 2', "line 4: many.name: Expected `str`, got `int`; read 2"),
        ('[[many]]\nname = "a"\n[[many]]\nnome = "b"', "line 4: many.nome: unknown key 'nome'; allowed here: name,"),
        (
            '[[many]]\nname = "a"\ntags = ["abc", "abcd"]',
            "line 3: many.tags: Expected `str` of length <= 3; read 'abcd'",
        ),
        ("size = 1\nsize = 2\nrate = 1", "Cannot overwrite a value (at line 2"),
        ("size = ", "Invalid value (at"),
        ("many = 5", "line 1: many: Expected `array`, got `int`; read 5"),
        ('"size" = "x"', "line 1: size: Expected a size"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(text, message):
    assert mistake(text).startswith(f"it.toml: {message}")


def test_what_types_can_not_say_is_refused_the_same_way():
    document = Document('size = 1\n[[many]]\nname = "a"\n[[many]]\nname = "b"', "it.toml")
    assert str(document.refused(["many", "1", "name"], "is taken")) == "it.toml: line 5: many.name: is taken"
    assert str(document.refused(["other"], "is missing")) == "it.toml: other: is missing"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        said = f"it.toml: {read(text)}"
    except Mistake as mistake:
        said = str(mistake)
    assert said.startswith("it.toml: ")


@pytest.mark.parametrize(
    ("address", "expected"),
    [("h:80", ("h", 80)), ("[2001:db8::1]:80", ("2001:db8::1", 80)), ("192.0.2.1:0", ("192.0.2.1", 0))],
)
def test_host_and_port(address, expected):
    assert host_and_port(address) == expected


@pytest.mark.parametrize(
    "address", ["", "h", "h:", ":80", "h:x", "h:70000", "u@h:80", "h:80/x", "[::1:80", "http://h:80"]
)
def test_what_is_no_host_and_port(address):
    with pytest.raises(ValueError):
        host_and_port(address)


@pytest.mark.parametrize(
    ("url", "leads"),
    [
        ("https://h", True),
        ("https://h:8443/x", True),
        ("http://h", False),
        ("https://", False),
        ("h", False),
        ("https://h:0", False),
        ("https://h:99999", False),
        ("https://[::1", False),
    ],
)
def test_a_url_leads_somewhere_with_its_scheme_and_a_host(url, leads):
    assert leads_somewhere(url, ("https",)) is leads


def test_sizes_of_a_command_line():
    assert (size_of("5"), size_of("2 KiB")) == (5, 2048)
    with pytest.raises(ValueError, match="Expected a size"):
        size_of("many")
