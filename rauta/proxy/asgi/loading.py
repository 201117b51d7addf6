"""Imports ASGI applications, and says what stands in the way."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from functools import reduce
from pathlib import Path
from types import FunctionType, ModuleType, TracebackType
from typing import Any, Final, TypeGuard

from rauta.proxy.asgi.protocol import Application
from rauta.routing.errors import RautaError
from rauta.routing.model import nearest

_OURS: Final = (importlib.__file__, __file__, "<frozen importlib")  # frames that say nothing of what was imported


class LoadError(RautaError):
    """An application cannot be imported. `raised`: by code of its own, whose traceback is that of the cause."""

    def __init__(self, message: str, *, raised: bool = False) -> None:
        super().__init__(message)
        self.raised = raised


def load(name: str) -> Application:
    """What `module:attribute` names. Imports the module; blocks. Raises LoadError."""
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # foreign code: whatever it raises is its failure, told as such
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module):
            raise LoadError(f"asgi {name!r}: there is no module {error.name!r}{_searched(error.name)}") from None
        error.__traceback__ = _of_others(error.__traceback__)
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        text = f"asgi {name!r}: the import of its module failed: {what}{_place(error)}"
        raise LoadError(text, raised=True) from error
    try:
        application: Application = reduce(getattr, attribute.split("."), found)
    except AttributeError:
        raise LoadError(f"asgi {name!r}: there is no {attribute!r} in {_what_it_has(found, attribute)}") from None
    if not callable(application):
        raise LoadError(f"asgi {name!r} is no application: {type(application).__name__} cannot be called")
    return application


def _is_part(missing: str | None, module: str) -> TypeGuard[str]:
    """Whether it is the module that was asked for, or a package around it; else, it is one that the module wants."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _of_others(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames that lead to foreign code."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _place(error: BaseException) -> str:
    """The innermost place of foreign code: ` (file:line in function)`, or nothing."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f" ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""


def _what_it_has(module: ModuleType, wanted: str) -> str:
    """Where a module is, and what could have been meant."""
    own = [key for key, value in vars(module).items() if not key.startswith("_") and _is_own(value, module)]
    guess = nearest(wanted, own)
    hint = f"; did you mean {guess!r}?" if guess else f"; it has {', '.join(own[:5]) or 'nothing that can be called'}"
    return f"module {module.__name__!r} ({getattr(module, '__file__', None) or 'a folder without __init__.py'}){hint}"


def _is_own(value: object, module: ModuleType) -> bool:
    """Whether it can be called, and is not what another module has defined."""
    defined = isinstance(value, type | FunctionType)
    return callable(value) and (not defined or getattr(value, "__module__", "") == module.__name__)


def _searched(module: str) -> str:
    """Where Python has looked, and what to do."""
    package, _, _ = module.rpartition(".")
    if package:
        return f" in package {package!r} ({', '.join(getattr(sys.modules.get(package), '__path__', ()))})"
    here = str(Path.cwd())
    paths = [entry or here for entry in sys.path]
    added = [entry for entry in paths if entry != here and not _installed(entry)]
    looked = ", ".join([*([f"the working directory {here}"] if here in paths else []), *added, "installed packages"])
    advice = "set PYTHONPATH to the folder that has it"
    if here not in paths:
        advice += f", or start rauta by `python -m rauta.proxy`, which looks in the working directory ({here}) too"
    return f"; Python has looked in {looked}: {advice}"


def _installed(entry: str) -> bool:
    """Whether this is a place of the interpreter or of an environment, or none that a person has named."""
    return not os.path.isdir(entry) or any(  # noqa: PTH112 - entries of sys.path are text, and may be anything
        entry == prefix or entry.startswith(prefix + os.sep) for prefix in (sys.prefix, sys.base_prefix)
    )
