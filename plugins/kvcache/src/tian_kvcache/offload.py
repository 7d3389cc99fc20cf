"""The baseline that keeps weights outside the memory it may use: accelerate's offload hooks around a full cache.

On a CPU the weights lie in files, which the system keeps in its page cache; so this baseline never waits for a disk, and
what is measured is copying, the least that offloading can cost. On a CUDA device they lie in CPU memory.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tian.errors import MissingDependency
from tian_kvcache.speed_ways import twin

if TYPE_CHECKING:
    from pathlib import Path


def check_accelerate() -> None:
    """Refuse before anything is measured.

    Raises:
        MissingDependency: accelerate is not installed.
    """
    if find_spec("accelerate") is None:
        raise MissingDependency(
            "disk=true needs accelerate, which is not installed",
            where="disk",
            hint="pip install accelerate, or set disk=false",
        )


def offloaded(model: Any, folder: Path) -> Any:
    """A twin of `model` whose weights are outside: files in `folder`, or CPU memory for a CUDA model."""
    from accelerate import cpu_offload, disk_offload  # type: ignore[import-untyped]

    other = twin(model)
    if model.device.type == "cuda":
        return cpu_offload(other, execution_device=model.device)
    return disk_offload(other, str(folder), execution_device=model.device)
