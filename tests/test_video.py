import stat
import sys

import pytest

from tests.small_runs import make_run
from utils.errors import UserError
from utils.runs.setup import require_environment
from utils.video import find_ffmpeg


def test_a_run_with_videos_says_at_its_start_that_ffmpeg_is_missing(
    tmp_path, dataset_dir, monkeypatch
):
    run = make_run(tmp_path, dataset_dir, video_episodes=1)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"videos need ffmpeg.*`pip install imageio-ffmpeg`, or"):
        require_environment(run.settings)


def test_the_machines_own_ffmpeg_will_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "ffmpeg"
    program.touch()
    program.chmod(stat.S_IRWXU)
    assert find_ffmpeg() == str(program)
