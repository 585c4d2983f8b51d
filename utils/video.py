"""Episodes as one mp4 file."""

import contextlib
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError


def find_ffmpeg() -> str:
    """Return the path of ffmpeg: that of imageio-ffmpeg, or the machine's own.

    Raises:
        UserError: There is neither.
    """
    with contextlib.suppress(ImportError, RuntimeError):  # not installed, or without a program
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    if found := shutil.which("ffmpeg"):
        return found
    raise UserError(
        "videos need ffmpeg, which is not here; install it with `pip install imageio-ffmpeg`, or "
        "give --video_episodes=0"
    )


def write_video(path: str | Path, videos: Sequence[np.ndarray], fps: float = 15) -> None:
    """Write episodes as one mp4, side by side in a grid.

    Episodes that are over stay at their last frame. The file appears complete or not at all.

    Args:
        path: The file; its folder must exist.
        videos: uint8 arrays (T, H, W, 3), of equal H and W.
        fps: Frames per second.

    Raises:
        UserError: The file cannot be written, or there is no ffmpeg.
    """
    path = Path(path)
    length = max(len(video) for video in videos)
    height, width = videos[0].shape[1:3]
    columns = math.ceil(math.sqrt(len(videos)))
    rows = math.ceil(len(videos) / columns)
    # H.264 with halved colour resolution needs even sides.
    height_in_all, width_in_all = (side + side % 2 for side in (height * rows, width * columns))
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
    # ffmpeg is run here and not by imageio-ffmpeg, which forks in a way that can deadlock with JAX.
    command = [find_ffmpeg(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width_in_all}x{height_in_all}"]
    command += ["-r", str(fps), "-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p", str(temporary)]
    try:
        with tempfile.TemporaryFile() as messages:
            ffmpeg = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stderr=messages,
                start_new_session=True,  # Ctrl-C is for this process to answer.
            )
            # If it gives up early, its return code tells.
            with ffmpeg, contextlib.suppress(BrokenPipeError), ffmpeg.stdin:
                for t in range(length):
                    canvas = np.zeros((height_in_all, width_in_all, 3), np.uint8)
                    for i, video in enumerate(videos):
                        top, left = i // columns * height, i % columns * width
                        frame = video[min(t, len(video) - 1)]
                        canvas[top : top + height, left : left + width] = frame
                    ffmpeg.stdin.write(canvas.data)
            if ffmpeg.returncode:
                messages.seek(0)
                raise OSError(messages.read().decode(errors="replace").strip())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"the video {path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
