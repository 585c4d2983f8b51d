"""Standard output that is closed, or whose reader goes away."""

import io
import os

from utils.output import Output


def test_a_reader_that_goes_away_is_said_once_and_ends_nothing(capsys):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        output = Output(stream)
        print("first", file=output, flush=True)
        assert os.read(reader, 100) == b"first\n"
        os.close(reader)
        for _ in range(3):
            print("lost", file=output, flush=True)
    assert capsys.readouterr().err == "standard output: Broken pipe; going on without it\n"


def test_a_program_started_without_one_goes_on(capsys):
    output = Output(None)
    print("lost", file=output, flush=True)
    assert capsys.readouterr().err == "standard output: there is none; going on without it\n"
    output.close()


def test_it_is_the_stream_in_all_else():
    stream = io.StringIO()
    output = Output(stream)
    assert output.write("text") == 4
    assert stream.getvalue() == "text"
    assert output.isatty() is False
