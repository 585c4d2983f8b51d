import os
import sys
from types import ModuleType

import pytest

from tests.processes import run_python
from utils.envs import rendering
from utils.envs.ogbench.environments import make_env
from utils.errors import UserError


def test_choice_of_renderer_respects_what_is_set(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setitem(sys.modules, "mujoco", ModuleType("mujoco"))
    monkeypatch.setattr(rendering, "_try", lambda probe: pytest.fail("looked although set"))
    assert rendering.choose_gl() == "osmesa"


@pytest.mark.skipif(sys.platform != "linux", reason="MuJoCo chooses itself")
@pytest.mark.parametrize(
    ("working", "display", "chosen"),
    [
        (("egl", "osmesa", "glfw"), ":0", "egl"),
        (("osmesa", "glfw"), ":0", "osmesa"),
        (("glfw",), ":0", "glfw"),
        (("glfw",), None, "disabled"),
        ((), ":0", "disabled"),
    ],
)
def test_choice_of_renderer(monkeypatch, working, display, chosen):
    probes = {
        rendering._EGL_PROBE: "egl",
        rendering._OSMESA_PROBE: "osmesa",
        rendering._GLFW_PROBE: "glfw",
    }
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)  # It would load what is chosen.
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setenv(rendering._TRIED, "")
    monkeypatch.setenv(rendering._RENDERER, "")
    tries = {probe: "llvmpipe" if name == "egl" else "" for probe, name in probes.items()}
    monkeypatch.setattr(
        rendering, "_try", lambda probe: tries[probe] if probes[probe] in working else None
    )
    assert rendering.choose_gl() == chosen == os.environ["MUJOCO_GL"]
    assert rendering.renderer() == {"egl": "llvmpipe", "osmesa": "osmesa"}.get(chosen, "")


def test_a_probe_that_aborts_or_fails_does_not_count():
    assert rendering._try("import os; os.abort()") is None
    assert rendering._try("raise OSError") is None
    assert rendering._try("pass") == ""
    assert rendering._try("print('llvmpipe')") == "llvmpipe"


@pytest.mark.skipif(sys.platform != "linux", reason="MuJoCo chooses itself")
def test_the_probe_of_egl_tells_the_renderer_that_mujoco_has():
    if (found := rendering._try(rendering._EGL_PROBE)) is None:
        pytest.skip("there is no EGL")
    code = (
        "import mujoco; context = mujoco.GLContext(8, 8); context.make_current();"
        "from OpenGL import GL; print(GL.glGetString(GL.GL_RENDERER).decode()); context.free()"
    )
    result = run_python(code, MUJOCO_GL="egl")
    assert result.stdout.strip() == found != "", result.stderr


def test_what_is_chosen_really_works():
    code = (
        "from utils.envs import rendering, tasks; print(rendering.choose_gl());"
        "env = tasks.make_env('cube-single-play-singletask-v0'); env.reset(seed=0);"
        "print(rendering.choose_gl() == 'disabled' or env.render().std() > 1); env.close()"
    )
    result = run_python(code, MUJOCO_GL=None)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[1] == "True"
    assert result.stderr == ""


def test_without_opengl_environments_work_and_images_say_what_is_missing(monkeypatch):
    code = (
        "from utils.envs import tasks\n"
        "for name in ('cube-single-play', 'pointmaze-medium-navigate'):\n"
        "    env = tasks.make_env(f'{name}-singletask-v0')\n"
        "    env.reset(seed=0)\n"
        "    print(env.step(env.action_space.sample())[1])\n"
    )
    result = run_python(code, MUJOCO_GL="disabled")
    assert result.stdout.split() == ["-1.0", "-1.0"], result.stderr
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(UserError, match=r"videos need OpenGL .*libegl1 libgl1, or libosmesa6"):
        rendering.require_gl("videos")
    with pytest.raises(UserError, match="pixel observations need OpenGL"):
        make_env("visual-cube-single-play-singletask-v0")


CALLS = """
import os, sys
from utils.collect.workers import collect
from utils.envs import rendering, tasks
from utils.errors import UserError

for value in ("eggl", "osmesa"):
    os.environ["MUJOCO_GL"] = value
    sys.modules["OpenGL"] = None  # there is no library
    for call in (
        rendering.choose_gl,
        lambda: tasks.make_env("cube-single-play-singletask-v0"),
        lambda: tasks.make_env("pointmaze-medium-navigate-singletask-v0"),
        lambda: tasks.make_env("pen-cloned-v1"),
        lambda: collect("visual-cube-single-play", dataset_dir=sys.argv[1]),
    ):
        try:
            call()
        except UserError as error:
            print(error)
"""


def test_a_way_of_rendering_that_mujoco_cannot_have_is_a_line(tmp_path):
    result = run_python(CALLS, tmp_path)
    lines = result.stdout.splitlines()
    assert len(lines) == 10, result.stderr
    for line, value in zip(lines, ["eggl"] * 5 + ["osmesa"] * 5, strict=True):
        assert f"MuJoCo cannot be imported with MUJOCO_GL={value} (" in line
        assert "; unset MUJOCO_GL" in line


def test_a_set_way_of_rendering_that_does_not_work_is_said_before_images_are_made(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setenv(rendering._TRIED, "")
    monkeypatch.setitem(sys.modules, "mujoco", ModuleType("mujoco"))
    monkeypatch.setenv(rendering._RENDERER, "")
    glfw = rendering._GLFW_PROBE
    monkeypatch.setattr(rendering, "_try", lambda probe: None if probe == glfw else "")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UserError, match="videos need OpenGL, and MUJOCO_GL=glfw does not work"):
        rendering.require_gl("videos")
    monkeypatch.setattr(rendering, "_try", lambda probe: "")
    rendering.require_gl("videos")
    monkeypatch.setattr(rendering, "_try", lambda probe: pytest.fail("tried again"))
    rendering.require_gl("videos")


@pytest.mark.parametrize(
    ("renderer", "has_gpu", "warned"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", True, True),
        ("softpipe", True, True),
        ("osmesa", True, True),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", False, False),
        ("NVIDIA H200/PCIe/SSE2", True, False),
        ("Mesa Intel(R) UHD Graphics 620 (KBL GT2)", False, False),
        ("", True, False),
    ],
)
def test_software_beside_a_gpu_is_worth_a_warning(renderer, has_gpu, warned):
    text = rendering.software_warning(renderer, has_gpu)
    assert bool(text) == warned
    if warned:
        assert text.startswith(f"OpenGL renders in software ({renderer}) although")
        assert "NVIDIA_DRIVER_CAPABILITIES=graphics" in text
        assert "10_nvidia.json" in text


def test_a_gpu_is_seen_by_its_device(tmp_path):
    assert not rendering.has_nvidia_gpu(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert not rendering.has_nvidia_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert rendering.has_nvidia_gpu(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="MuJoCo chooses itself")
@pytest.mark.parametrize("set_to", ["", "egl"])
def test_software_beside_a_gpu_is_said_once(monkeypatch, capsys, set_to):
    monkeypatch.setitem(sys.modules, "mujoco", ModuleType("mujoco"))
    monkeypatch.setattr(rendering.importlib, "reload", lambda module: None)
    monkeypatch.setitem(sys.modules, "mujoco.gl_context", ModuleType("gl_context"))
    monkeypatch.setenv("MUJOCO_GL", set_to)
    for name in (rendering._TRIED, rendering._RENDERER, rendering._SAID):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(rendering, "_try", lambda probe: "llvmpipe")
    monkeypatch.setattr(rendering, "has_nvidia_gpu", lambda: True)
    rendering.choose_gl()
    assert capsys.readouterr().err == ""  # Images may not be needed.
    rendering.require_gl("pixel observations")
    err = capsys.readouterr().err
    assert err.startswith("warning: OpenGL renders in software (llvmpipe)")
    assert err.count("\n") == 1
    rendering.require_gl("videos")  # as workers do, whose environment is this one
    assert capsys.readouterr().err == ""
