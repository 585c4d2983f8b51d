"""A sweep's file: what a shell makes of its lines, and what is refused."""

import json
import random
import subprocess
import sys

import pytest

from utils.errors import UserError
from utils.sweep.commands import join, parse, read

SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"


def test_values_arrive_as_they_were_meant(tmp_path):
    """In any shell's way, through the file, and through what resolves its lines."""
    program = tmp_path / "show it.py"
    program.write_text(SHOW)
    draw = random.Random(0)
    pieces = ["'", '"', " ", ",", "(512, 512)", "$HOME", "`id`", "\\", "*", "#", "~", ";", "&", "a"]
    pieces += ["=", "--", "%", "!", "{a,b}", "é", "[1]", "<", "|", "\t", "?"]
    lines = []
    for _ in range(60):
        values = ["".join(draw.choices(pieces, k=draw.randrange(6))) for _ in range(3)]
        arguments = [f"--name={value}" for value in values]
        line = join([sys.executable, str(program), *arguments])
        command = parse(line, "a line")
        assert (command.entry_point, list(command.arguments)) == (str(program), arguments)
        lines.append((line, arguments))
    file = tmp_path / "commands.txt"
    file.write_text("".join(f"{line}\n" for line, _ in lines[:12]))
    script = 'while IFS= read -r line; do bash -c "exec env $line" </dev/null; done <"$0"'
    done = subprocess.run(["bash", "-c", script, file], capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        arguments for _, arguments in lines[:12]
    ]
    assert [command.text for command in read(file)] == [line for line, _ in lines[:12]]


def test_a_line_may_have_variables_and_options_of_the_interpreter():
    command = parse("MUJOCO_GL=egl A='b c' python -u main.py --seed=1 --agent=my.py", "a line")
    assert (command.entry_point, command.arguments) == ("main.py", ("--seed=1", "--agent=my.py"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python main.py --a=$HOME", r"a shell would not take \$ as it stands"),
        ('python main.py "--a=$HOME"', r"a shell would not take \$"),
        ("python main.py --a=(5, 5)", r"would not take \("),
        ("python main.py --a=1; rm x", "would not take ;"),
        ("python main.py --a=1 # note", "would not take #"),
        ("python main.py --a={1,2}", r"would not take \{"),
        ("python main.py '--a=1", "no closing quotation"),
        ("main.py --a=1", "no entry point"),
        ("python -m my.main", "no entry point"),
    ],
)
def test_what_a_shell_would_change_is_refused(line, message):
    with pytest.raises(UserError, match=f"^sweep.txt, line 3: .*{message}"):
        parse(line, "sweep.txt, line 3")


def test_single_quotes_protect_and_a_tilde_within_a_word_stays():
    text = r"""python main.py '--a=$(x); #"' --save_dir=~/exp "--b=it's" --c=a\ b"""
    assert parse(text, "").arguments == ('--a=$(x); #"', "--save_dir=~/exp", "--b=it's", "--c=a b")


def test_a_file_is_edited_by_hand(tmp_path):
    file = tmp_path / "sweep.txt"
    file.write_text("# note\n\n  python main.py --seed=1\n#python main.py --seed=2\n")
    (command,) = read(file)
    assert (command.text, command.where) == ("python main.py --seed=1", f"{file}, line 3")
    file.write_text("# nothing\n")
    with pytest.raises(UserError, match="has no command"):
        read(file)
    with pytest.raises(UserError, match=r"cannot read .*; give the file of a sweep"):
        read(tmp_path)


def test_a_line_break_does_not_fit_into_a_line():
    with pytest.raises(UserError, match="a line break in a value"):
        join(["python", "main.py", "--a=1\n2"])


def test_the_mark_that_editors_put_first_is_no_part_of_a_command(tmp_path):
    file = tmp_path / "sweep.txt"
    file.write_bytes(b"\xef\xbb\xbfpython main.py --seed=1\r\n")
    assert [command.text for command in read(file)] == ["python main.py --seed=1"]


def test_what_ends_a_line_of_the_file_is_refused_in_a_value():
    with pytest.raises(UserError, match="a line break in a value"):
        join(["python", "main.py", "--note=one\u2028two"])
