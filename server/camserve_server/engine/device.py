"""The device that models run on, and how a thread that uses it prepares it."""

from __future__ import annotations

import torch


def choose_device(name: str) -> torch.device:
    """Returns the device for "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises ValueError for another name and for a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is none of auto, cpu, cuda, cuda:N")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        if not torch.cuda.is_available() or device.index >= torch.cuda.device_count():
            raise ValueError(f"device {name!r} is not on this machine")
    return device


def prepare_thread(device: torch.device, threads: int) -> None:
    """Prepares the calling thread: a pool of `threads` CPU threads, a GPU stream of its own, repeatable results.

    On a GPU, float32 stays float32 (no TF32) and cuDNN picks the same algorithm every time, so that answers do not
    vary. On the stream that threads share by default each would wait for the kernels of all.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def empty_cache(device: torch.device) -> None:
    """Gives back the memory that torch keeps for later; the CPU's allocator keeps none."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what this thread gave it; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def memory_bytes(device: torch.device) -> dict[str, int]:
    """Returns bytes of a GPU's memory: "used" by tensors, "kept" for them by torch, "free" and "total" of the device.

    Empty for the CPU, whose memory is the process's. May be asked from any thread.
    """
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    used, kept = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    return {"used": used, "kept": kept, "free": free, "total": total}
