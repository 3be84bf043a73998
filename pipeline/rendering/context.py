"""The process's one OpenGL context, without a window; the only module that imports pyrender.

Everything that draws asks `make_current()` first. Where the machine has no OpenGL library
the error says which packages bring a software one.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

HOW_TO_INSTALL = "sudo apt-get install -y libegl1 libgl1 libgl1-mesa-dri libglib2.0-0"


class NoGraphics(OSError):
    """No off-screen OpenGL context can be made on this machine."""


@cache
def _platform() -> Any:
    # PyOpenGL chooses its loader once, when first imported.
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    # pyrender loads a window that nobody opens, and where only some of X11's libraries are there that fails.
    os.environ.setdefault("PYGLET_HEADLESS", "true")
    try:
        from pyrender.platforms.egl import EGLPlatform

        platform = EGLPlatform(1, 1)
        platform.init_context()
    except Exception as error:  # each missing library fails in its own way, down to AttributeError
        raise NoGraphics(
            f"no off-screen OpenGL ({type(error).__name__}: {error}). Rendering needs EGL and a driver; "
            f"Mesa's software driver will do:\n  {HOW_TO_INSTALL}"
        ) from error
    return platform


def make_current() -> None:
    """Make the process's context current, creating it at the first call.

    Raises NoGraphics, naming the packages, when the machine has no OpenGL.
    """
    _platform().make_current()
