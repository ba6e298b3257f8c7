"""Keys of config.json that no field of ModelConfig is read from: refused, harmless, or unknown."""

from collections.abc import Mapping
from typing import Any

from calculator.errors import ConfigError

MLX = "is MLX's quantization, which is not read: name the checkpoint that it was made of"
EXPERTS = "makes a mixture of experts, whose experts are neither counted nor run"
REFUSED = {
    "vision_config": "is the image part of a multimodal model, which is neither counted nor run",
    "audio_config": "is the audio part of a multimodal model, which is neither counted nor run",
    "text_config": "makes a multimodal model, of which no part is read",
    "quantization": MLX,
    "quantization_bit": "is ChatGLM's own quantization as it loads, which is not done: remove it "
    "and use glm4q quantize",
    "pre_seq_len": "is the prefix of P-tuning v2, which is neither counted nor run",
    "position_encoding_2d": "belongs to the first ChatGLM-6B, which is another architecture",
    "inner_hidden_size": "belongs to the first ChatGLM-6B, which is another architecture",
    "n_routed_experts": EXPERTS,
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "num_nextn_predict_layers": "adds layers that predict later tokens, which are not counted",
    "is_encoder_decoder": "makes an encoder and a decoder, and only a decoder is run",
    "add_cross_attention": "adds attention to an encoder, which is not run",
    "per_layer_config": "makes layers that differ, which are not counted",
    "use_qk_norm": "adds norms of queries and keys, which are not computed",
    "qk_layernorm": "adds norms of queries and keys, which are not computed",
    "mlp_bias": "adds biases to the feed-forward layers, which are not computed",
    "interleaved_qkv": "interleaves the rows of queries, keys and values, which is not read",
    "attn_logit_softcapping": "limits the scores of attention, which is not computed",
    "final_logit_softcapping": "limits the logits, which is not computed",
}
"""Keys that make another model of it unless they are false, 0, null or empty; and why."""

_READ_FROM_HUGGING_FACE = """
    model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings rms_norm_eps rope_theta rope_scaling
    rope_parameters partial_rotary_factor attention_bias tie_word_embeddings eos_token_id hidden_act
"""
_READ_FROM_NATIVE = """
    model_type padded_vocab_size hidden_size ffn_hidden_size num_layers num_attention_heads
    multi_query_attention multi_query_group_num kv_channels seq_length layernorm_epsilon rope_ratio
    add_qkv_bias tie_word_embeddings eos_token_id rmsnorm post_layer_norm add_bias_linear
    apply_residual_connection_post_layernorm original_rope num_hidden_layers vocab_size
"""
_HARMLESS_NATIVE = """
    apply_query_key_layer_scaling attention_softmax_in_fp32 bias_dropout_fusion
    fp32_residual_connection hidden_dropout classifier_dropout
"""
_HARMLESS = """
    _name_or_path name_or_path architectures auto_map transformers_version torch_dtype dtype
    quantization_config compression_config attention_dropout initializer_range use_cache
    pad_token_id bos_token_id sep_token_id cls_token_id mask_token_id unk_token_id
    decoder_start_token_id tokenizer_class attn_implementation _attn_implementation
    _attn_implementation_autoset _commit_hash id2label label2id num_labels problem_type
    finetuning_task task_specific_params return_dict output_attentions output_hidden_states
    torchscript use_bfloat16 tf_legacy_loss pruned_heads chunk_size_feed_forward is_decoder
    cross_attention_hidden_size tie_encoder_decoder prefix use_flash_attn pretraining_tp
    unsloth_fixed unsloth_version gradient_checkpointing
    max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p min_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences
    output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    epsilon_cutoff eta_cutoff
    random_weights
"""
"""Keys that say nothing of what inference computes. transformers writes most of them, and up to
release 4 it also wrote the settings of generation here; `bench --synthetic` writes the last."""

KNOWN = {
    "glm": frozenset((_READ_FROM_HUGGING_FACE + _HARMLESS).split()),
    "glm4": frozenset((_READ_FROM_HUGGING_FACE + _HARMLESS).split()),
    "chatglm": frozenset((_READ_FROM_NATIVE + _HARMLESS_NATIVE + _HARMLESS).split()),
}


def check_keys(raw: Mapping[str, Any], model_type: str, name: str) -> None:
    """Raise ConfigError at a key that makes another model; name the unknown ones in one line.

    name: the file, for that line.
    """
    for key, reason in REFUSED.items():
        if raw.get(key):
            raise ConfigError(f"{key} {reason}")
    # A key of null, false or 0 asks for nothing.
    unknown = sorted(
        str(key)
        for key, value in raw.items()
        if value and key not in KNOWN[model_type] and key not in REFUSED
    )
    if unknown:
        several = "keys" if len(unknown) > 1 else "key"
        import logging  # 2 ms of a cold start, for a few files

        logging.getLogger(__name__).warning(
            "%s has the %s %s, unknown for model type %s: ignored, so check that the "
            "model does not depend on it",
            name,
            several,
            ", ".join(unknown),
            model_type,
        )
