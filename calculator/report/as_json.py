"""A plan as JSON: bytes everywhere, every term with its formula and source."""

from typing import Any

from calculator.architecture import num_parameters
from calculator.plan import MemoryPlan

SCHEMA = "glm4q.calc/1"


def plan_as_json(plan: MemoryPlan, model: str) -> dict[str, Any]:
    """What `glm4q calc --json` prints."""
    return {
        "schema": SCHEMA,
        "model": model,
        "parameters": num_parameters(plan.config),
        "context": plan.settings.context,
        "batch": plan.settings.batch,
        "prefill_chunk": plan.settings.prefill_chunk,
        "terms": [
            {
                "name": term.name,
                "device": term.device,
                "bytes": term.bytes,
                "formula": term.formula,
                "source": term.source,
            }
            for term in plan.terms
        ],
        "weights_bytes": plan.weights_bytes,
        "kv_cache_bytes": plan.kv_cache.bytes,
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "workspace_bytes": plan.workspace.bytes,
        "runtime_overhead_bytes": plan.runtime_overhead.bytes,
        "total_gpu_bytes": plan.device_bytes("gpu"),
        "total_host_bytes": plan.device_bytes("host"),
    }
