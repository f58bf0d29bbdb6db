"""Tables, sizes and spans as a person reads them."""

import io

import pytest

from oca.commands.terminal import Progress, size, span, table


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024**3, "1.5 TiB"),
        (1024**4 - 1, "1.0 TiB"),
        (2000 * 1024**5, "2000.0 PiB"),
    ],
)
def test_sizes(given, told):
    assert size(given) == told


@pytest.mark.parametrize(
    ("given", "told"), [(-3, "0 s"), (0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (7300, "2 h"), (3e6, "34 d")]
)
def test_spans(given, told):
    assert span(given) == told


def test_a_table_lines_up_and_marks_what_is_empty():
    lines = table(("A", "LONG"), [("x", ""), ("wide one", "y")]).splitlines()
    assert lines == ["A         LONG", "x         -", "wide one  y"]


def test_progress_is_one_line_on_a_terminal_and_few_lines_elsewhere():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, said in ((Terminal(), "\rten left\r9 left  \n"), (io.StringIO(), "ten left\n")):
        progress = Progress(stream)
        for text in ("ten left", "ten left", "9 left"):
            progress.tell(text)
        progress.end()
        assert stream.getvalue() == said
