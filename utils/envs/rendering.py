"""The choice of how MuJoCo renders."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

from utils.errors import UserError

_DISABLED = ("disable", "disabled", "off", "false", "0")
_PROBE_SECONDS = 20

# Say to the processes started from here what was tried already, which renderer it had, and of
# which one the user knows that it is slow.
_TRIED = "DEFLOW_TRIED_GL"
_RENDERER = "DEFLOW_GL_RENDERER"
_SAID = "DEFLOW_SAID_GL_RENDERER"

_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "osmesa")

# Each probe runs in its own interpreter: a broken driver aborts or hangs the process that tries it.
# They make a context the way MuJoCo does, with ctypes alone, because importing MuJoCo to find out
# costs half a second. A library that is missing raises OSError, everything else asserts. What they
# print is GL_RENDERER, as far as it tells more than the way of rendering does.
_EGL_PROBE = """
import ctypes, os
egl = ctypes.CDLL("libEGL.so.1")
gl = ctypes.CDLL("libGL.so.1")
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
gl.glGetString.restype = ctypes.c_char_p
print((gl.glGetString(0x1F01) or b"").decode(errors="replace"), flush=True)
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
    if (renderer := _try(_EGL_PROBE)) is not None:
        chosen = "egl"
    elif _try(_OSMESA_PROBE) is not None:
        chosen = renderer = "osmesa"
    elif os.environ.get("DISPLAY") and _try(_GLFW_PROBE) is not None:
        chosen = "glfw"
    else:
        chosen = "disabled"
    os.environ["MUJOCO_GL"] = os.environ[_TRIED] = chosen
    os.environ[_RENDERER] = renderer or ""
    if "mujoco" in sys.modules:
        importlib.reload(sys.modules["mujoco.gl_context"])
    return chosen


def require_gl(purpose: str) -> None:
    """Make sure that rendering is possible, and say once if a GPU is left out.

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
        tried = _try(probe) if sys.platform == "linux" else ""
        if tried is None:
            raise UserError(
                f"{purpose} need OpenGL, and MUJOCO_GL={chosen} does not work here: unset "
                "MUJOCO_GL to have what works chosen"
            )
        os.environ[_TRIED], os.environ[_RENDERER] = chosen, tried
    warning = software_warning(renderer(), has_nvidia_gpu())
    if warning and os.environ.get(_SAID) != renderer():
        os.environ[_SAID] = renderer()
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def renderer() -> str:
    """Return what renders, as OpenGL calls it; empty if unknown or before `require_gl`."""
    return os.environ.get(_RENDERER, "")


def has_nvidia_gpu(devices: Path = Path("/dev")) -> bool:
    """Return whether this process has an NVIDIA GPU, as far as Linux's folder of devices shows."""
    return any(os.access(device, os.R_OK | os.W_OK) for device in devices.glob("nvidia[0-9]*"))


def software_warning(renderer: str, has_gpu: bool) -> str:
    """Return what to say of rendering in software beside an NVIDIA GPU, else an empty string.

    EGL takes Mesa without a word where it does not find the GPU's own driver.

    Args:
        renderer: What renders, see `renderer`.
        has_gpu: Whether there is such a GPU.
    """
    if not has_gpu or not any(name in renderer.lower() for name in _SOFTWARE):
        return ""
    return (
        f"OpenGL renders in software ({renderer}) although there is an NVIDIA GPU, which is many "
        "times faster: give the container NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility, and "
        "see that 10_nvidia.json is in /usr/share/glvnd/egl_vendor.d"
    )


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


def _try(probe: str) -> str | None:
    """Return what a probe prints, run in its own interpreter; None if it does not end well."""
    try:
        result = subprocess.run(
            [sys.executable, "-I", "-c", probe],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_SECONDS,
            check=False,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
