"""Writes the checkpoint and the token rows that the training-step comparison uses. Standard library only.

usage: make_mini.py FOLDER        makes FOLDER/mini-f32, FOLDER/mini-bf16 (Hugging Face layout, no tokenizer) and
                                  FOLDER/tokens.jsonl (rows of {"input_ids", "labels"}, every token a target)

A DeepSeek-V3 in small: 89 M parameters, 6 layers (1 dense), 32 experts in 4 groups. Weights are normal with
deviation 0.02 from a fixed seed, tokens are uniform: it measures speed and memory, and knows nothing. Both
checkpoints hold the same numbers as far as BF16 reaches.
"""
import argparse
import array
import json
import pathlib
import random
import struct

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 512, "num_hidden_layers": 6,
    "first_k_dense_replace": 1, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 8,
    "q_lora_rank": 256, "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
    "n_routed_experts": 32, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 4, "n_shared_experts": 1,
    "moe_intermediate_size": 256, "moe_layer_freq": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "vocab_size": 16384, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None, "hidden_act": "silu", "attention_bias": False,
    "attention_dropout": 0.0, "tie_word_embeddings": False, "num_nextn_predict_layers": 0, "ep_size": 1,
    "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 1, "use_cache": True,
}


def shapes(config):
    """[(name, shape, kind)] of the checkpoint; kind: 'normal', 'ones' or 'bias' (zeros, always F32)."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    q_rank, kv_rank, vocabulary = config["q_lora_rank"], config["kv_lora_rank"], config["vocab_size"]
    found = [("model.embed_tokens.weight", [vocabulary, hidden], "normal")]

    def mlp(prefix, width):
        found.extend([(f"{prefix}.gate_proj.weight", [width, hidden], "normal"),
                      (f"{prefix}.up_proj.weight", [width, hidden], "normal"),
                      (f"{prefix}.down_proj.weight", [hidden, width], "normal")])

    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        found += [
            (f"{layer}.input_layernorm.weight", [hidden], "ones"),
            (f"{layer}.self_attn.q_a_proj.weight", [q_rank, hidden], "normal"),
            (f"{layer}.self_attn.q_a_layernorm.weight", [q_rank], "ones"),
            (f"{layer}.self_attn.q_b_proj.weight", [heads * (nope + rope), q_rank], "normal"),
            (f"{layer}.self_attn.kv_a_proj_with_mqa.weight", [kv_rank + rope, hidden], "normal"),
            (f"{layer}.self_attn.kv_a_layernorm.weight", [kv_rank], "ones"),
            (f"{layer}.self_attn.kv_b_proj.weight", [heads * (nope + value), kv_rank], "normal"),
            (f"{layer}.self_attn.o_proj.weight", [hidden, heads * value], "normal"),
            (f"{layer}.post_attention_layernorm.weight", [hidden], "ones"),
        ]
        if index < config["first_k_dense_replace"]:
            mlp(f"{layer}.mlp", config["intermediate_size"])
            continue
        width = config["moe_intermediate_size"]
        found += [(f"{layer}.mlp.gate.weight", [config["n_routed_experts"], hidden], "normal"),
                  (f"{layer}.mlp.gate.e_score_correction_bias", [config["n_routed_experts"]], "bias")]
        for expert in range(config["n_routed_experts"]):
            mlp(f"{layer}.mlp.experts.{expert}", width)
        mlp(f"{layer}.mlp.shared_experts", width * config["n_shared_experts"])
    return found + [("model.norm.weight", [hidden], "ones"), ("lm_head.weight", [vocabulary, hidden], "normal")]


class Pool:
    """A few million normal numbers, drawn once; a tensor is a stretch of them from a drawn place, wrapped
    around. The pool's odd length keeps the rows of a large matrix from repeating."""

    def __init__(self, seed, length=(1 << 22) + 15, deviation=0.02):
        self.draw = random.Random(seed)
        gauss = self.draw.gauss
        self.bytes = array.array("f", (gauss(0.0, deviation) for _ in range(length))).tobytes()

    def stretch(self, count):
        begin, size, length = 4 * self.draw.randrange(len(self.bytes) // 4), 4 * count, len(self.bytes)
        out = self.bytes[begin:begin + size]
        while len(out) < size:
            out += self.bytes[:min(length, size - len(out))]
        return out


def to_bf16(data):
    """The upper halves of little-endian float32 values (rounded towards zero: good enough for random numbers)."""
    out = bytearray(len(data) // 2)
    out[0::2], out[1::2] = data[2::4], data[3::4]
    return bytes(out)


def write_checkpoint(folder, config, dtype, seed):
    folder.mkdir(parents=True, exist_ok=True)
    pool = Pool(seed)
    header, offset, tensors = {"__metadata__": {"format": "pt"}}, 0, shapes(config)
    for name, shape, kind in tensors:
        count = 1
        for extent in shape:
            count *= extent
        kept = "F32" if kind == "bias" else dtype
        size = count * (4 if kept == "F32" else 2)
        header[name] = {"dtype": kept, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape, kind in tensors:
            begin, end = header[name]["data_offsets"]
            count = (end - begin) // (4 if header[name]["dtype"] == "F32" else 2)
            if kind == "normal":
                data = pool.stretch(count)
            else:
                data = struct.pack("<f", 1.0 if kind == "ones" else 0.0) * count
            file.write(data if header[name]["dtype"] == "F32" else to_bf16(data))
    torch_name = {"F32": "float32", "BF16": "bfloat16"}[dtype]
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": torch_name}, indent=1) + "\n")


def write_tokens(path, vocabulary, rows, length, seed):
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(rows):
            ids = [draw.randrange(2, vocabulary) for _ in range(length)]
            file.write(json.dumps({"input_ids": ids, "labels": ids}, separators=(",", ":")) + "\n")


def make(folder, rows=256, length=512, seed=1234):
    """Makes what is missing. Returns the two checkpoint folders and the token file."""
    folder = pathlib.Path(folder)
    wanted = json.dumps([CONFIG, rows, length, seed])
    done = folder / "made.json"
    if not done.is_file() or done.read_text() != wanted:
        for dtype, name in (("F32", "mini-f32"), ("BF16", "mini-bf16")):
            write_checkpoint(folder / name, CONFIG, dtype, seed)
        write_tokens(folder / "tokens.jsonl", CONFIG["vocab_size"], rows, length, seed)
        done.write_text(wanted)
    return {"f32": folder / "mini-f32", "bf16": folder / "mini-bf16", "tokens": folder / "tokens.jsonl"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1234)
    args = parser.parse_args()
    for name, path in make(args.folder, args.rows, args.length, args.seed).items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    main()
