# SPDX-License-Identifier: Apache-2.0
"""How much memory a computation took, how to give some back, and how running out looks. MB."""

import ctypes
import gc
import os
from contextlib import suppress
from pathlib import Path

import torch

SHORTAGES = (
    *("not enough memory", "can't allocate memory"),  # PyTorch on a CPU
    *("out of memory", "CUBLAS_STATUS_ALLOC_FAILED"),  # what its libraries say on a GPU
)
"""Parts of the messages of RuntimeErrors that say nothing of memory in their type."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether this exception says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SHORTAGES)


def give_back_memory() -> None:
    """Free what nobody uses but PyTorch and the C library keep for the next time."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def resident_mb() -> float:
    """Return the resident memory of this process [MB]; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class PeakMemory:
    """Highest memory use since `start`: what PyTorch took on a GPU, or this whole process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._can_forget = True

    def start(self) -> None:
        """Forget the highest use so far."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or not permitted in this container
            self._can_forget = False

    def highest_mb(self) -> float:
        """Return the highest use [MB]; the present one where the system cannot tell, or 0."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device) / 1e6
        if not self._can_forget:
            return resident_mb()
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return 0.0
        kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(kilobytes[0]) * 1024 / 1e6 if kilobytes else 0.0
