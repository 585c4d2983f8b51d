"""The choice of how MuJoCo renders."""

import importlib
import os
import subprocess
import sys

from utils.errors import UserError

_DISABLED = ("disable", "disabled", "off", "false", "0")
_PROBE_SECONDS = 20

# Says to the processes started from here what was tried already.
_TRIED = "DEFLOW_TRIED_GL"

# Each probe runs in its own interpreter: a broken driver aborts or hangs the process that tries it.
# They make a context the way MuJoCo does, with ctypes alone, because importing MuJoCo to find out
# costs half a second. A library that is missing raises OSError, everything else asserts.
_EGL_PROBE = """
import ctypes, os
egl = ctypes.CDLL("libEGL.so.1")
ctypes.CDLL("libGL.so.1")
pointer, integer, null = ctypes.c_void_p, ctypes.c_int, None
egl.eglGetProcAddress.restype = pointer
def function(name, result, *arguments):
    address = egl.eglGetProcAddress(name.encode())
    assert address
    return ctypes.CFUNCTYPE(result, *arguments)(address)
devices, count = (pointer * 64)(), integer()
query = function("eglQueryDevicesEXT", ctypes.c_uint, integer, pointer, pointer)
assert query(64, devices, ctypes.byref(count))
chosen = os.environ.get("MUJOCO_EGL_DEVICE_ID")
candidates = devices[: count.value] if chosen is None else [devices[: count.value][int(chosen)]]
platform_display = function("eglGetPlatformDisplayEXT", pointer, ctypes.c_uint, pointer, pointer)
displays = (platform_display(0x313F, device, null) for device in candidates)
display = next(d for d in displays if d and egl.eglInitialize(pointer(d), null, null))
wanted = (0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8, 0x3025, 24, 0x3026, 8,
          0x303F, 0x308E, 0x3033, 0x0001, 0x3040, 0x0008, 0x3038)
config, found = pointer(), integer()
attributes = (integer * len(wanted))(*wanted)
chosen = egl.eglChooseConfig(
    pointer(display), attributes, ctypes.byref(config), 1, ctypes.byref(found)
)
assert chosen and found.value
assert egl.eglBindAPI(0x30A2)
egl.eglCreateContext.restype = pointer
context = egl.eglCreateContext(pointer(display), config, null, null)
assert context
assert egl.eglMakeCurrent(pointer(display), null, null, pointer(context))
os._exit(0)
"""

_OSMESA_PROBE = """
import ctypes, os
for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
    try:
        mesa = ctypes.CDLL(name)
        break
    except OSError:
        continue
mesa.OSMesaCreateContextExt.restype = ctypes.c_void_p
assert mesa.OSMesaCreateContextExt(0x1908, 24, 8, 0, None)
os._exit(0)
"""

_GLFW_PROBE = """
import glfw, os
assert glfw.init()
glfw.window_hint(glfw.VISIBLE, 0)
assert glfw.create_window(8, 8, "", None, None)
os._exit(0)
"""


def choose_gl() -> str:
    """Set `MUJOCO_GL` to a way of rendering that works here.

    What is set already stays, if MuJoCo can be imported with it. Else this tries EGL, OSMesa and,
    where there is a display, GLFW; with none of them MuJoCo is told not to render (`disabled`),
    because it would abort the process. It may be imported already, by what needs no images. The
    choice stays in the environment, so processes started from here inherit it without looking
    again. On systems other than Linux MuJoCo's own choice is right and nothing is set.

    Returns:
        The value of `MUJOCO_GL`, or an empty string where MuJoCo chooses itself.

    Raises:
        UserError: What is set is unknown to MuJoCo, or its library is missing.
    """
    chosen = os.environ.get("MUJOCO_GL", "").strip()
    require_import()
    if chosen or sys.platform != "linux":
        return chosen
    if _works(_EGL_PROBE):
        chosen = "egl"
    elif _works(_OSMESA_PROBE):
        chosen = "osmesa"
    elif os.environ.get("DISPLAY") and _works(_GLFW_PROBE):
        chosen = "glfw"
    else:
        chosen = "disabled"
    os.environ["MUJOCO_GL"] = os.environ[_TRIED] = chosen
    if "mujoco" in sys.modules:
        importlib.reload(sys.modules["mujoco.gl_context"])
    return chosen


def require_gl(purpose: str) -> None:
    """Make sure that rendering is possible.

    Args:
        purpose: What needs it, as the beginning of a sentence ("videos", "pixel observations").

    Raises:
        UserError: Nothing here can render what MuJoCo is told to, or rendering has been switched
            off.
    """
    chosen = choose_gl().lower()
    if chosen in _DISABLED:
        raise UserError(
            f"{purpose} need OpenGL and neither EGL nor OSMesa works here: install one of them "
            "(apt-get install libegl1 libgl1, or libosmesa6) and unset MUJOCO_GL"
        )
    if chosen and os.environ.get(_TRIED) != chosen:
        probe = {"egl": _EGL_PROBE, "osmesa": _OSMESA_PROBE}.get(chosen, _GLFW_PROBE)
        if sys.platform == "linux" and not _works(probe):
            raise UserError(
                f"{purpose} need OpenGL, and MUJOCO_GL={chosen} does not work here: unset "
                "MUJOCO_GL to have what works chosen"
            )
        os.environ[_TRIED] = chosen


def require_import() -> None:
    """Make sure that MuJoCo can be imported with what `MUJOCO_GL` is set to, if it is set.

    Raises:
        UserError: It is unknown to MuJoCo, or its library is missing.
    """
    if not os.environ.get("MUJOCO_GL", "").strip():
        return
    try:
        importlib.import_module("mujoco")
    except Exception as error:  # PyOpenGL raises AttributeError for a missing library, for instance
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"MuJoCo cannot be imported with MUJOCO_GL={os.environ['MUJOCO_GL']} "
            f"({type(error).__name__}: {reason}); unset MUJOCO_GL to have what works chosen, or "
            "set egl, osmesa, glfw or disabled"
        ) from error


def _works(probe: str) -> bool:
    """Return whether a probe comes to its end, in its own interpreter."""
    try:
        result = subprocess.run(
            [sys.executable, "-I", "-c", probe],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0
