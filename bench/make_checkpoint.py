"""Writes a checkpoint of a published model's dimensions, in FP8 with 128x128 block scales. Standard library only.

usage: make_checkpoint.py v2-lite|v3 FOLDER [--layers N] [--header_only] [--seed N]

Names, shapes, dtypes and totals are those of the published files (V3: 91,991 tensors with the MTP layer, 163 shards);
V2-Lite is published in BF16 and gets the same treatment as V3 here. Weights are random: normal-like FP8 codes, scales
that bring them to a deviation near 0.02, norms of one. --header_only writes sparse files that hold headers and nothing
else (every weight reads as zero): enough for planners and checkers. --layers keeps only the first N layers (no MTP).
"""
import argparse
import json
import pathlib
import random
import struct

COMMON = {
    "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6, "rope_theta": 10000, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "kv_lora_rank": 512, "moe_layer_freq": 1, "max_position_embeddings": 163840, "initializer_range": 0.02,
    "use_cache": True, "torch_dtype": "bfloat16",
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [128, 128]},
}
MODELS = {
    "v2-lite": {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "vocab_size": 102400,
        "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 27,
        "first_k_dense_replace": 1, "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": None,
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1,
        "scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False, "routed_scaling_factor": 1.0,
        "bos_token_id": 100000, "eos_token_id": 100001, "num_nextn_predict_layers": 0,
        "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
                         "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "v3": {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 129280,
        "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
        "first_k_dense_replace": 3, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
        "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
        "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
        "bos_token_id": 0, "eos_token_id": 1, "num_nextn_predict_layers": 1, "ep_size": 1,
        "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
                         "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
    },
}
BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}


def tensors(config):
    """[(name, dtype, shape)] in the order of the layers."""
    hidden, heads, vocabulary = config["hidden_size"], config["num_attention_heads"], config["vocab_size"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    q_rank, kv_rank, width = config["q_lora_rank"], config["kv_lora_rank"], config["moe_intermediate_size"]
    found = []

    def plain(name, *shape, dtype="BF16"):
        found.append((name, dtype, list(shape)))

    def quantised(name, rows, cols):
        found.append((name, "F8_E4M3", [rows, cols]))
        found.append((name + "_scale_inv", "F32", [-(-rows // 128), -(-cols // 128)]))

    def mlp(prefix, inner):
        quantised(f"{prefix}.gate_proj.weight", inner, hidden)
        quantised(f"{prefix}.up_proj.weight", inner, hidden)
        quantised(f"{prefix}.down_proj.weight", hidden, inner)

    plain("model.embed_tokens.weight", vocabulary, hidden)
    for index in range(config["num_hidden_layers"] + config["num_nextn_predict_layers"]):
        layer = f"model.layers.{index}"
        if index >= config["num_hidden_layers"]:
            plain(f"{layer}.embed_tokens.weight", vocabulary, hidden)
            plain(f"{layer}.enorm.weight", hidden)
            plain(f"{layer}.hnorm.weight", hidden)
            plain(f"{layer}.eh_proj.weight", hidden, 2 * hidden)
            plain(f"{layer}.shared_head.norm.weight", hidden)
            plain(f"{layer}.shared_head.head.weight", vocabulary, hidden)
        plain(f"{layer}.input_layernorm.weight", hidden)
        plain(f"{layer}.post_attention_layernorm.weight", hidden)
        if q_rank:
            quantised(f"{layer}.self_attn.q_a_proj.weight", q_rank, hidden)
            plain(f"{layer}.self_attn.q_a_layernorm.weight", q_rank)
            quantised(f"{layer}.self_attn.q_b_proj.weight", heads * (nope + rope), q_rank)
        else:
            quantised(f"{layer}.self_attn.q_proj.weight", heads * (nope + rope), hidden)
        quantised(f"{layer}.self_attn.kv_a_proj_with_mqa.weight", kv_rank + rope, hidden)
        plain(f"{layer}.self_attn.kv_a_layernorm.weight", kv_rank)
        quantised(f"{layer}.self_attn.kv_b_proj.weight", heads * (nope + value), kv_rank)
        quantised(f"{layer}.self_attn.o_proj.weight", hidden, heads * value)
        if index < config["first_k_dense_replace"]:
            mlp(f"{layer}.mlp", config["intermediate_size"])
            continue
        plain(f"{layer}.mlp.gate.weight", config["n_routed_experts"], hidden)
        if config["scoring_func"] == "sigmoid":
            plain(f"{layer}.mlp.gate.e_score_correction_bias", config["n_routed_experts"], dtype="F32")
        for expert in range(config["n_routed_experts"]):
            mlp(f"{layer}.mlp.experts.{expert}", width)
        mlp(f"{layer}.mlp.shared_experts", width * config["n_shared_experts"])
    plain("model.norm.weight", hidden)
    plain("lm_head.weight", vocabulary, hidden)
    return found


def size_of(dtype, shape):
    count = BYTES[dtype]
    for extent in shape:
        count *= extent
    return count


class Numbers:
    """Bytes of random tensors: stretches of pools that were drawn once."""

    LENGTH = (1 << 24) + 4093

    def __init__(self, seed):
        draw = self.draw = random.Random(seed)
        values = [draw.gauss(0.0, 32.0) for _ in range(1 << 14)]
        self.fp8 = bytes(draw.choices([self.e4m3(value) for value in values], k=self.LENGTH))
        words = [struct.pack("<f", value / 32.0 * 0.02)[2:] for value in values]
        self.bf16 = b"".join(draw.choices(words, k=self.LENGTH // 2))

    @staticmethod
    def e4m3(value):
        """The code below |value| (normal numbers only)."""
        sign, value = (128 if value < 0 else 0), min(abs(value), 448.0)
        exponent = 7
        while exponent > 1 and value < 2.0 ** (exponent - 7):
            exponent -= 1
        while exponent < 15 and value >= 2.0 ** (exponent - 6):
            exponent += 1
        mantissa = max(0, min(7, int(value / 2.0 ** (exponent - 7) * 8) - 8))
        return sign | exponent << 3 | (mantissa if exponent < 15 else min(mantissa, 6))

    def pieces(self, name, dtype, shape):
        left = size_of(dtype, shape)
        if name.endswith("norm.weight"):
            yield struct.pack("<f", 1.0)[2:] * (left // 2)
            return
        if name.endswith("e_score_correction_bias"):
            yield bytes(left)
            return
        if dtype == "F32":  # block scales
            yield b"".join(struct.pack("<f", 0.02 / 32.0 * self.draw.uniform(0.5, 1.5)) for _ in range(left // 4))
            return
        pool = self.fp8 if dtype == "F8_E4M3" else self.bf16
        begin = 2 * self.draw.randrange(len(pool) // 2)
        while left > 0:
            piece = memoryview(pool)[begin:begin + left]
            yield piece
            left -= len(piece)
            begin = 0


def write_shard(path, entries, numbers):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in entries:
        end = offset + size_of(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        if numbers is None:
            out.truncate(8 + len(text) + offset)
            return
        for name, dtype, shape in entries:
            for piece in numbers.pieces(name, dtype, shape):
                out.write(piece)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--header_only", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    config = {**COMMON, **MODELS[arguments.model]}
    if arguments.layers:
        config.update(num_hidden_layers=arguments.layers, num_nextn_predict_layers=0)
    everything = tensors(config)
    total = sum(size_of(dtype, shape) for _, dtype, shape in everything)
    largest = 4.28e9
    shards, used = [[]], 0
    for entry in everything:
        size = size_of(entry[1], entry[2])
        if used + size > largest:
            shards.append([])
            used = 0
        shards[-1].append(entry)
        used += size
    arguments.folder.mkdir(parents=True, exist_ok=True)
    numbers = None if arguments.header_only else Numbers(arguments.seed)
    weight_map = {}
    for index, entries in enumerate(shards, 1):
        name = f"model-{index:05d}-of-{len(shards):06d}.safetensors"
        # Wide dtypes first, so that every tensor is aligned.
        entries.sort(key=lambda entry: (-BYTES[entry[1]], entry[0]))
        write_shard(arguments.folder / name, entries, numbers)
        weight_map.update((entry[0], name) for entry in entries)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (arguments.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{arguments.folder}: {len(everything)} tensors, {total} bytes, {len(shards)} shards"
          + (", headers only" if arguments.header_only else ""))


if __name__ == "__main__":
    main()
