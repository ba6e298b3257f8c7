"""A GGUF file whose query, key and value weights are one tensor, as ik_llama.cpp reads chatglm."""

from pathlib import Path

import gguf
import numpy as np

PARTS = ("attn_q", "attn_k", "attn_v")


def fuse_qkv(source: Path, target: Path) -> None:
    """Copy a GGUF file, with "attn_qkv" in the place of its three parts."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kinds = [*field.types, None]
            writer.add_key_value(name, field.contents(), kinds[0], kinds[1])
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, tensor in tensors.items():
        if any(f".{part}." in name for part in PARTS[1:]):
            continue
        data = np.asarray(tensor.data)
        if ".attn_q." in name:  # blocks lie within rows, so rows are joined as bytes
            parts = [np.asarray(tensors[name.replace("attn_q", part)].data) for part in PARTS]
            name, data = name.replace("attn_q", "attn_qkv"), np.concatenate(parts)
        writer.add_tensor(name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
