"""Row numbers in .npy files. NumPy and the standard library alone, for containers read them, too."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError

Integers = npt.NDArray[np.integer[Any]]


def open_array(path: Path, called: str = "") -> Integers:
    """The row numbers of a .npy file, memory-mapped [accesses]; nothing is read, whatever its header says.

    BadInputError where it is missing or holds other things. `called`: what messages call the file.
    """
    called = called or str(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise BadInputError(f"{called}: is no file.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2, which are read all the same
            array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise BadInputError(f"{called}: cannot be read: {error.strerror or error}.") from error
    except BadInputError:
        raise
    except Exception as error:  # whatever a header makes NumPy's parser stumble over
        raise BadInputError(f"{called}: is cut short, or no plain NumPy array.") from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadInputError(f"{called}: holds no one-dimensional array of integers.")
    if len(array) == 0:
        raise BadInputError(f"{called}: is empty; a trace needs at least one row number.")
    return array
