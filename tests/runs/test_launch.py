"""How an entry point ends."""

import pytest

from utils.errors import UserError
from utils.runs import launch


def test_an_error_ends_the_program_with_its_message_and_exit_code(capsys):
    def fail(code):
        raise UserError("the folder is taken", details="a traceback", exit_code=code)

    for code in (1, 75):
        with pytest.raises(SystemExit) as ended:
            launch._guarded(fail, code)
        assert ended.value.code == code
        assert capsys.readouterr().err == "a traceback\nerror: the folder is taken\n"
