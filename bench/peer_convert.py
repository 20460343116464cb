"""FP8 <-> BF16 with block scales in PyTorch on the CPU, a shard at a time, as the published scripts do on a GPU.

usage: peer_convert.py SOURCE TARGET bf16|fp8 THREADS; prints {"seconds": ..., "flush_seconds": ...} without the start of Python.
Each file is flushed to its disk when it is written, as deepseek-convert does; "seconds" is without that.
"""
import json
import os
import sys
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

BLOCK = 128
PROJECTIONS = ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def spread(scale, shape):
    return scale.repeat_interleave(BLOCK, 0)[:shape[0]].repeat_interleave(BLOCK, 1)[:, :shape[1]]


def dequantise(weight, scale):
    return (weight.float() * spread(scale, weight.shape)).bfloat16()


def quantise(weight):
    rows, cols = weight.shape
    wide = torch.zeros((rows + 127) // 128 * 128, (cols + 127) // 128 * 128)
    wide[:rows, :cols] = weight
    blocks = wide.view(wide.shape[0] // BLOCK, BLOCK, wide.shape[1] // BLOCK, BLOCK)
    scale = blocks.abs().amax((1, 3)).clamp(min=1e-4) / 448.0
    codes = (blocks / scale[:, None, :, None]).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes.view_as(wide)[:rows, :cols].contiguous(), scale


def flush(path):
    begin = time.perf_counter()
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)
    return time.perf_counter() - begin


def main():
    source, target, to, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    torch.set_num_threads(threads)
    os.makedirs(target)
    begin = time.perf_counter()
    flushing = 0.0
    for name in sorted(os.listdir(source)):
        if not name.endswith(".safetensors"):
            continue
        made = {}
        with safe_open(os.path.join(source, name), "pt") as shard:
            for key in shard.keys():
                tensor = shard.get_tensor(key)
                if to == "bf16":
                    if key.endswith("_scale_inv"):
                        continue
                    fp8 = tensor.dtype == torch.float8_e4m3fn
                    made[key] = dequantise(tensor, shard.get_tensor(key + "_scale_inv")) if fp8 else tensor
                elif tensor.dim() == 2 and key.split(".")[-2] in PROJECTIONS:
                    made[key], made[key + "_scale_inv"] = quantise(tensor)
                else:
                    made[key] = tensor
        save_file(made, os.path.join(target, name), {"format": "pt"})
        flushing += flush(os.path.join(target, name))
    print(json.dumps({"seconds": time.perf_counter() - begin - flushing, "flush_seconds": flushing}))


if __name__ == "__main__":
    main()
