"""What an error says of memory."""

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a device."""
    said = str(error)
    texts = ("can't allocate memory", "not enough memory")  # on Linux and macOS, and on Windows
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(text in said for text in texts)
