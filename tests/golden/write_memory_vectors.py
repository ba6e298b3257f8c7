"""Write memory_vectors.json: `python tests/golden/write_memory_vectors.py`, then read the diff."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from calculator.memory.plan import Planner
from calculator.memory.settings import Settings
from calculator.model.presets import PRESETS
from calculator.questions.subject import Variant

FILE = Path(__file__).with_name("memory_vectors.json")
MODELS = ("glm-4-9b-chat", "glm-4-9b-chat-1m", "GLM-4-9B-0414", "GLM-4-32B-0414", "chatglm3-6b")
VARIANTS = (
    Variant("bf16"),
    Variant("int8"),
    Variant("int4"),
    Variant("int4", "32"),
    Variant("int4", "128", "int8"),
    Variant("nf4"),
    Variant("llm-int8"),
)
CONTEXTS = (1024, 32_768, 131_072)


def vectors() -> Iterator[dict[str, Any]]:
    """Each case: what was asked, and the bytes of every term that takes any."""
    for model in MODELS:
        config = PRESETS[model]
        for variant in VARIANTS:
            planner = Planner(config, variant.formats(config))
            for kv in ("bf16", "int8", "int4"):
                for context in CONTEXTS:
                    if context <= config.max_position_embeddings:
                        plan = planner.plan(replace(Settings(), context=context, kv=kv))
                        yield {
                            "model": model,
                            "weights": variant.weights,
                            "group_size": variant.group_size,
                            "lm_head": variant.lm_head,
                            "kv": kv,
                            "context": context,
                            "terms": {term.name: term.bytes for term in plan.terms if term.bytes},
                            "total_gpu_bytes": plan.device_bytes("gpu"),
                        }


def as_text() -> str:
    """A line a case, so that a change shows as lines."""
    return "[\n" + ",\n".join(json.dumps(case) for case in vectors()) + "\n]\n"


if __name__ == "__main__":
    FILE.write_text(as_text())
