"""What the GPU's driver says of this process."""

import os

import torch


def process_bytes(device: torch.device) -> int | None:
    """Bytes of the GPU that this process holds, CUDA context included; None where none is told.

    By process and not by what is free: other programs come and go meanwhile.
    """
    if device.type != "cuda":
        return None
    import pynvml as nvml

    try:
        nvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None  # a container may hide the driver's list; torch's own counts remain
    held = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    return held[0] if held else None
