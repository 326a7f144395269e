"""Writes the packed models of tests/data/packed, independently of the library: packing as the formats' own code does it.

    python3 tests/packed/write.py

Needs nothing but Python. The weights are those of tests/data/models/llama3 (its first layer). Every layout gets a folder
with a config.json, an index, packed.safetensors, and twin.safetensors.gz: what the packed weights are, as float32. All
of them share base.safetensors (embeddings, norms, output). blocks.safetensors has rows of 512 weights in each of the
library's own block formats, which are what these layouts become, with their values.

Sources: mlx ops.cpp affine_quantize; AutoGPTQ qlinear_cuda.py pack() and forward(); AutoAWQ packing_utils.py and
gemm.py from_linear(); DeepSeek-V3 kernel.py weight_dequant(); compressed-tensors quantization/lifecycle/forward.py;
bitsandbytes functional.py quantize_4bit(), QuantState; OCP 8-bit Floating Point Specification 1.0.
"""

import gzip
import json
import math
import os
import random
import struct

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(ROOT, "data")
OUT = os.path.join(DATA, "packed")
LAYER = "model.layers.0."
MATRICES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


# --- numbers ---

def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def f16(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def bf16_bits(x):
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16


def bf16(x):
    return struct.unpack("<f", struct.pack("<I", bf16_bits(x) << 16))[0]


def pack_f32(values):
    return struct.pack("<%df" % len(values), *values)


def pack_f16(values):
    return struct.pack("<%de" % len(values), *values)


def pack_bf16(values):
    return struct.pack("<%dH" % len(values), *map(bf16_bits, values))


def pack_u32(values):
    return struct.pack("<%dI" % len(values), *values)


def e4m3_value(byte):
    exponent, mantissa = byte >> 3 & 15, byte & 7
    value = mantissa * 2.0 ** -9 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -value if byte & 0x80 else value


def e5m2_value(byte):
    exponent, mantissa = byte >> 2 & 31, byte & 3
    value = mantissa * 2.0 ** -16 if exponent == 0 else (1 + mantissa / 4) * 2.0 ** (exponent - 15)
    return -value if byte & 0x80 else value


E4M3 = {byte: e4m3_value(byte) for byte in range(256) if byte & 0x7f != 0x7f}
E5M2 = {byte: e5m2_value(byte) for byte in range(256) if byte & 0x7c != 0x7c}


def nearest(table, value):
    return min(table, key=lambda code: (abs(table[code] - value), code))


# --- safetensors ---

def read_safetensors(path):
    data = open(path, "rb").read()
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], entry["shape"], data[8 + length + begin:8 + length + end])
    return tensors


def safetensors(tensors):
    header, body = {}, b""
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if path.endswith(".gz"):
        with open(path, "wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            packed.write(data)
    else:
        open(path, "wb").write(data)


# --- the layouts: matrix (rows of floats) -> (tensors, rows of dequantised floats) ---

def mlx(name, w, bits, group, to_float, pack_float, dtype):
    """X.weight uint32, the first number in the lowest bits; w = scale * q + bias."""
    top, words, scales, biases, twin = (1 << bits) - 1, [], [], [], []
    for row in w:
        values = []
        for start in range(0, len(row), group):
            part = row[start:start + group]
            low, high = min(part), max(part)
            scale = to_float(max((high - low) / top, 1e-7))
            bias = to_float(low)
            codes = [min(top, max(0, round((x - bias) / scale))) for x in part]
            scales.append(scale)
            biases.append(bias)
            values += [f32(f32(scale * q) + bias) for q in codes]
            per = 32 // bits
            for at in range(0, group, per):
                words.append(sum(q << bits * i for i, q in enumerate(codes[at:at + per])))
        twin.append(values)
    rows, cols = len(w), len(w[0])
    return {
        name + ".weight": ("U32", [rows, cols * bits // 32], pack_u32(words)),
        name + ".scales": (dtype, [rows, cols // group], pack_float(scales)),
        name + ".biases": (dtype, [rows, cols // group], pack_float(biases)),
    }, twin


def grouped(w, bits, g_idx):
    """Scales, zero points and codes by groups (g_idx: of each column), w = scale * (q - zero), asymmetric."""
    top, scales, zeros, codes = (1 << bits) - 1, [], [], []
    members = [[c for c, of in enumerate(g_idx) if of == g] for g in range(max(g_idx) + 1)]
    for row in w:
        row_scales, row_zeros, row_codes = [], [], [None] * len(row)
        for columns in members:
            part = [row[c] for c in columns]
            low, high = min(0.0, min(part)), max(0.0, max(part))
            scale = f16(max((high - low) / top, 1e-5))
            zero = min(top, max(0, round(-low / scale)))
            row_scales.append(scale)
            row_zeros.append(zero)
            for c, x in zip(columns, part):
                row_codes[c] = min(top, max(0, round(x / scale) + zero))
        scales.append(row_scales)
        zeros.append(row_zeros)
        codes.append(row_codes)
    twin = [[f32(scales[r][g_idx[c]] * (q - zeros[r][g_idx[c]])) for c, q in enumerate(row)] for r, row in enumerate(codes)]
    return scales, zeros, codes, twin


def by_importance(cols, group, seed):
    """The group of each column where they were quantised in another order than they stand in (gptq.py, actorder)."""
    order = list(range(cols))
    random.Random(seed).shuffle(order)
    g_idx = [None] * cols
    for place, column in enumerate(order):
        g_idx[column] = place // group
    return g_idx


def gptq(name, w, bits, group, seed=None):
    """qweight (cols / n, rows), n columns to a word; qzeros (groups, rows / n), less one; scales (groups, rows)."""
    rows, cols, per, mask = len(w), len(w[0]), 32 // bits, (1 << bits) - 1
    group = cols if group == -1 else group
    groups = cols // group
    g_idx = [c // group for c in range(cols)] if seed is None else by_importance(cols, group, seed)
    scales, zeros, codes, twin = grouped(w, bits, g_idx)
    qweight = [sum(codes[r][k * per + i] << bits * i for i in range(per)) for k in range(cols // per) for r in range(rows)]
    qzeros = [sum((zeros[j * per + i][g] - 1 & mask) << bits * i for i in range(per))
              for g in range(groups) for j in range(rows // per)]
    return {
        name + ".qweight": ("I32", [cols // per, rows], pack_u32(qweight)),
        name + ".qzeros": ("I32", [groups, rows // per], pack_u32(qzeros)),
        name + ".scales": ("F16", [groups, rows], pack_f16([scales[r][g] for g in range(groups) for r in range(rows)])),
        name + ".g_idx": ("I32", [cols], pack_u32(g_idx)),
    }, twin


def awq(name, w, group):
    """qweight (cols, rows / 8), eight rows to a word in the order 0 2 4 6 1 3 5 7; qzeros (groups, rows / 8) likewise."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    scales, zeros, codes, twin = grouped(w, 4, [c // group for c in range(len(w[0]))])
    rows, cols = len(w), len(w[0])
    groups = cols // group
    word = lambda of, j: sum(of(j * 8 + order[i]) << 4 * i for i in range(8))
    qweight = [word(lambda r: codes[r][c], j) for c in range(cols) for j in range(rows // 8)]
    qzeros = [word(lambda r: zeros[r][g], j) for g in range(groups) for j in range(rows // 8)]
    return {
        name + ".qweight": ("I32", [cols, rows // 8], pack_u32(qweight)),
        name + ".qzeros": ("I32", [groups, rows // 8], pack_u32(qzeros)),
        name + ".scales": ("F16", [groups, rows], pack_f16([scales[r][g] for g in range(groups) for r in range(rows)])),
    }, twin


def float8(name, w, table, dtype, scale_of, scale_name, scale_tensor):
    """One byte a weight; w = scale * float."""
    codes = [[nearest(table, x / scale_of(r, c)) for c, x in enumerate(row)] for r, row in enumerate(w)]
    twin = [[f32(scale_of(r, c) * table[q]) for c, q in enumerate(row)] for r, row in enumerate(codes)]
    return {
        name + ".weight": (dtype, [len(w), len(w[0])], bytes(q for row in codes for q in row)),
        name + scale_name: scale_tensor,
    }, twin


def float8_tiles(name, w):
    rows, cols, tile = len(w), len(w[0]), 128
    shape = [math.ceil(rows / tile), math.ceil(cols / tile)]
    largest = [[0.0] * shape[1] for _ in range(shape[0])]
    for r, row in enumerate(w):
        for c, x in enumerate(row):
            largest[r // tile][c // tile] = max(largest[r // tile][c // tile], abs(x))
    scales = [[f32(x / 448.0) for x in row] for row in largest]
    tensor = ("F32", shape, pack_f32([x for row in scales for x in row]))
    return float8(name, w, E4M3, "F8_E4M3", lambda r, c: scales[r // tile][c // tile], ".weight_scale_inv", tensor)


def float8_rows(name, w):
    scales = [bf16(max(map(abs, row)) / 448.0) for row in w]
    tensor = ("BF16", [len(w), 1], pack_bf16(scales))
    return float8(name, w, E4M3, "F8_E4M3", lambda r, c: scales[r], ".weight_scale", tensor)


def float8_tensor(name, w):
    scale = f32(max(abs(x) for row in w for x in row) / 57344.0)
    return float8(name, w, E5M2, "F8_E5M2", lambda r, c: scale, ".weight_scale", ("F32", [1], pack_f32([scale])))


NF4 = [f32(x) for x in [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]]


def dynamic_map():
    """bitsandbytes create_dynamic_map(): signed, 8 bits."""
    data = []
    for i in range(7):
        items = 2 ** i + 1
        edges = [0.1 + 0.9 * j / (items - 1) for j in range(items)]
        means = [(a + b) / 2 for a, b in zip(edges, edges[1:])]
        data += [10.0 ** (i - 6) * m for m in means] + [-10.0 ** (i - 6) * m for m in means]
    data += [0.0, 1.0]
    return [f32(x) for x in sorted(data)]


def nf4(name, w, nested):
    """Two numbers to a byte, the first in the high nibble; all rows one after another; one magnitude for each 64."""
    rows, cols, block = len(w), len(w[0]), 64
    flat = [x for row in w for x in row]
    blocks = [flat[at:at + block] for at in range(0, len(flat), block)]
    largest = [f32(max(map(abs, part))) for part in blocks]
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": [rows, cols]}
    tensors = {}
    if nested:
        levels, size = dynamic_map(), 256
        assert len(levels) == 256
        offset = f32(sum(largest) / len(largest))
        centred = [f32(x - offset) for x in largest]
        scales = [f32(max(map(abs, centred[at:at + size]))) for at in range(0, len(centred), size)]
        table = dict(enumerate(levels))
        codes = [nearest(table, x / scales[i // size]) for i, x in enumerate(centred)]
        largest = [f32(f32(levels[q] * scales[i // size]) + offset) for i, q in enumerate(codes)]
        state.update({"nested_blocksize": size, "nested_dtype": "float32", "nested_offset": offset})
        tensors[name + ".weight.absmax"] = ("U8", [len(codes)], bytes(codes))
        tensors[name + ".weight.nested_absmax"] = ("F32", [len(scales)], pack_f32(scales))
        tensors[name + ".weight.nested_quant_map"] = ("F32", [256], pack_f32(levels))
    else:
        tensors[name + ".weight.absmax"] = ("F32", [len(largest)], pack_f32(largest))
    table = dict(enumerate(NF4))
    codes = [nearest(table, x / largest[i // block]) for i, x in enumerate(flat)]
    values = [f32(NF4[q] * largest[i // block]) for i, q in enumerate(codes)]
    packed = bytes(a << 4 | b for a, b in zip(codes[::2], codes[1::2]))
    text = json.dumps(state).encode()
    tensors[name + ".weight"] = ("U8", [len(packed), 1], packed)
    tensors[name + ".weight.quant_map"] = ("F32", [16], pack_f32(NF4))
    tensors[name + ".weight.quant_state.bitsandbytes__nf4"] = ("U8", [len(text)], text)
    return tensors, [values[r * cols:(r + 1) * cols] for r in range(rows)]


# --- models ---

def layouts():
    """Name, settings of config.json, and how each matrix is packed (None: as it is)."""
    narrow = lambda pack: lambda name, w: None if len(w[0]) % 64 else pack(name, w)
    yield "mlx", {"quantization": {"group_size": 32, "bits": 4, LAYER + "mlp.down_proj": {"group_size": 32, "bits": 8}}}, \
        lambda name, w: mlx(name, w, 8 if "down" in name else 4, 32, bf16, pack_bf16, "BF16")
    yield "mlx-g64", {"quantization": {"group_size": 64, "bits": 8}}, \
        narrow(lambda name, w: mlx(name, w, 8, 64, f16, pack_f16, "F16"))
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
    yield "gptq", {"quantization_config": config}, narrow(lambda name, w: gptq(name, w, 4, 32))
    yield "gptq-8", {"quantization_config": {**config, "bits": 8}}, lambda name, w: gptq(name, w, 8, 32)
    yield "gptq-g64", {"quantization_config": {**config, "group_size": 64}}, narrow(lambda name, w: gptq(name, w, 4, 64))
    # What reads the same input has the same order, as one Hessian gives it; in the second, every matrix one of its own.
    inputs = lambda name: next(seed for seed, part in enumerate(["q_proj|k_proj|v_proj", "o_proj", "gate_proj|up_proj", "down_proj"])
                               if name.split(".")[-1] in part.split("|"))
    yield "gptq-order", {"quantization_config": {**config, "desc_act": True}}, \
        narrow(lambda name, w: gptq(name, w, 4, 32, inputs(name)))
    yield "gptq-8-order", {"quantization_config": {**config, "bits": 8, "desc_act": True}}, \
        lambda name, w: gptq(name, w, 8, 32, name)
    yield "gptq-rows", {"quantization_config": {**config, "group_size": -1, "desc_act": True}}, \
        lambda name, w: gptq(name, w, 4, -1)
    yield "gptq-8-rows", {"quantization_config": {**config, "bits": 8, "group_size": -1}}, \
        lambda name, w: gptq(name, w, 8, -1)
    config = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
    yield "awq", {"quantization_config": config}, narrow(lambda name, w: awq(name, w, 32))
    config = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    yield "fp8", {"quantization_config": config}, float8_tiles
    yield "fp8-rows", {"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}, \
        lambda name, w: float8_tensor(name, w) if "mlp" in name else float8_rows(name, w)
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    yield "nf4", {"quantization_config": config}, narrow(lambda name, w: nf4(name, w, "mlp" in name))


def models():
    source = read_safetensors(os.path.join(DATA, "models/llama3/model.safetensors"))
    config = json.load(open(os.path.join(DATA, "models/llama3/config.json")))
    config["num_hidden_layers"] = 1
    packed = {LAYER + matrix + ".weight" for matrix in MATRICES}
    base = {name: tensor for name, tensor in source.items() if name not in packed and "layers.1." not in name}
    # A buffer that is no weight.
    base["model.layers.0.self_attn.position_ids"] = ("I64", [4], struct.pack("<4q", 0, 1, 2, 3))
    write(os.path.join(OUT, "base.safetensors"), safetensors(base))
    for folder, settings, pack in layouts():
        tensors, twin = {}, {}
        for matrix in MATRICES:
            name = LAYER + matrix
            dtype, (rows, cols), data = source[name + ".weight"]
            assert dtype == "BF16"
            flat = struct.unpack("<%dH" % (rows * cols), data)
            flat = [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in flat]
            made = pack(name, [flat[r * cols:(r + 1) * cols] for r in range(rows)])
            if made is None:
                tensors[name + ".weight"] = twin[name + ".weight"] = source[name + ".weight"]
                continue
            tensors.update(made[0])
            twin[name + ".weight"] = ("F32", [rows, cols], pack_f32([x for row in made[1] for x in row]))
        path = os.path.join(OUT, folder)
        write(os.path.join(path, "packed.safetensors"), safetensors(tensors))
        write(os.path.join(path, "twin.safetensors.gz"), safetensors(twin))
        index = {name: "packed.safetensors" for name in tensors} | {name: "base.safetensors" for name in base}
        write(os.path.join(path, "model.safetensors.index.json"), json.dumps({"weight_map": index}, indent=1).encode())
        write(os.path.join(path, "config.json"), json.dumps({**config, **settings}, indent=1).encode())


def deepseek():
    """A layer of DeepSeek-V3 as it is published: every projection in tiles, kv_b_proj too, whose heads' rows cross tiles."""
    folder, rng = os.path.join(DATA, "models/deepseek-v3"), random.Random(3)
    source = read_safetensors(os.path.join(folder, "model.safetensors"))
    config = json.load(open(os.path.join(folder, "config.json")))
    config.update({"num_hidden_layers": 1, "num_attention_heads": 8, "num_key_value_heads": 8, "quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}})
    tensors, twin = {}, {}
    for name, (dtype, shape, data) in source.items():
        if "layers.1." in name:
            continue
        # Eight heads instead of four.
        heads = {"q_b_proj": [192, 24], "kv_b_proj": [256, 32], "o_proj": [64, 128]}
        wider = next((shape for part, shape in heads.items() if part in name), None)
        if wider:
            shape = wider
            data = pack_bf16([rng.gauss(0, 1.5 / math.sqrt(shape[1])) for _ in range(shape[0] * shape[1])])
        if "_proj" not in name or shape[1] % 32:
            tensors[name] = (dtype, shape, data)
            continue
        rows, cols = shape
        flat = [struct.unpack("<f", struct.pack("<I", x << 16))[0] for x in struct.unpack("<%dH" % (rows * cols), data)]
        packed, values = float8_tiles(name[:-len(".weight")], [flat[r * cols:(r + 1) * cols] for r in range(rows)])
        tensors.update(packed)
        twin[name] = ("F32", shape, pack_f32([x for row in values for x in row]))
    path = os.path.join(OUT, "deepseek-fp8")
    write(os.path.join(path, "model.safetensors"), safetensors(tensors))
    write(os.path.join(path, "twin.safetensors.gz"), safetensors(twin))
    write(os.path.join(path, "config.json"), json.dumps(config, indent=1).encode())


def nested():
    """Matrices of nf4 wide enough to keep nested magnitudes; their scales change within them."""
    rng, tensors, twin = random.Random(5), {}, {}
    for name, (rows, cols) in {"wide": (48, 512), "narrow": (72, 256), "odd": (4, 192)}.items():
        w = [[rng.gauss(0, 0.02 * (1 + r % 5)) for _ in range(cols)] for r in range(rows)]
        packed, values = nf4(name, w, True)
        tensors.update(packed)
        twin[name + ".weight"] = ("F32", [rows, cols], pack_f32([x for row in values for x in row]))
    path = os.path.join(OUT, "nf4-nested")
    write(os.path.join(path, "packed.safetensors"), safetensors(tensors))
    write(os.path.join(path, "twin.safetensors.gz"), safetensors(twin))
    config = json.load(open(os.path.join(OUT, "nf4/config.json")))
    write(os.path.join(path, "config.json"), json.dumps(config, indent=1).encode())


# --- rows of blocks ---

def blocks():
    rng, tensors, width = random.Random(7), {}, 512
    byte = lambda: rng.randrange(256)
    size = lambda: 2.0 ** rng.uniform(-9, -5)

    def add(name, block, rows=4):
        raw, values = b"", []
        for r in range(rows):
            count = 0
            while count < width:
                data, weights = block(r, count)
                raw += data
                values += weights
                count += len(weights)
        tensors[name + ".raw"] = ("U8", [rows, len(raw) // rows], raw)
        tensors[name + ".f32"] = ("F32", [rows, width], pack_f32(values))

    nibbles = lambda q: [x for b in q for x in (b & 15, b >> 4)]
    for bits in (4, 8):
        for group in (32, 64, 128):
            for kind, to_float, pack in (("f16", f16, pack_f16), ("bf16", bf16, pack_bf16)):
                def affine(r, c):
                    scale, bias = to_float(size()), to_float(-8 * size())
                    q = [byte() for _ in range(group * bits // 8)]
                    codes = nibbles(q) if bits == 4 else q
                    return pack([scale, bias]) + bytes(q), [f32(f32(scale * x) + bias) for x in codes]
                add("affine%d_g%d_%s" % (bits, group, kind), affine)

            def zero(r, c):
                scale, point = f16(size()), rng.randrange(1 << bits)
                q = [byte() for _ in range(group * bits // 8)]
                codes = nibbles(q) if bits == 4 else q
                return pack_f16([scale]) + bytes([point]) + bytes(q), [f32(scale * (x - point)) for x in codes]

            def zero_pair(r, c):
                scales, points = [f16(size()), f16(size())], [rng.randrange(16), rng.randrange(16)]
                q = [byte() for _ in range(32)]
                codes = nibbles(q)
                data = pack_f16(scales) + bytes([points[0] | points[1] << 4]) + bytes(q)
                return data, [f32(scales[i // 32] * (x - points[i // 32])) for i, x in enumerate(codes)]
            add("zero%d_g%d" % (bits, group), zero_pair if (bits, group) == (4, 32) else zero)
    for bits in (4, 8):
        heads = [(f16(size()), rng.randrange(1 << bits)) for _ in range(4)]

        def zero_row(r, c):
            scale, point = heads[r]
            q = [byte() for _ in range(32 * bits // 8)]
            codes = nibbles(q) if bits == 4 else q
            return pack_f16([scale]) + bytes([point]) + bytes(q), [f32(scale * (x - point)) for x in codes]
        add("zero%d_row" % bits, zero_row)
    tiles = [f32(size()), f32(size())]
    rows = [[f32(size()), f32(size())] for _ in range(4)]
    for kind, table in (("e4m3", E4M3), ("e5m2", E5M2)):
        codes = sorted(table)
        for how in ("tile", "row"):
            def block(r, c):
                # Rows of 256 are made of these: two tiles each, or one scale each.
                scale = tiles[c // 128 % 2] if how == "tile" else rows[r][c // 256]
                q = [rng.choice(codes) for _ in range(32)]
                return pack_f32([scale]) + bytes(q), [f32(scale * table[x]) for x in q]
            add("f8_%s_%s" % (kind, how), block)

    def normal(r, c):
        largest, q = f32(size()), [byte() for _ in range(32)]
        return pack_f32([largest]) + bytes(q), [f32(NF4[x] * largest) for x in nibbles(q)]
    add("nf4", normal)
    levels, offset = dynamic_map(), f32(size())
    scales = [f32(size()) for _ in range(2)]

    def nested(r, c):
        # Scales change inside of rows, and go on where the last row is followed by the first.
        place = 230 + (r * width + c) // 64
        scale, code = scales[place // 256 % 2], byte()
        q = [byte() for _ in range(32)]
        largest = f32(f32(levels[code] * scale) + offset)
        data = pack_f32([offset, scale]) + bytes([place % 256, code]) + bytes(q)
        return data, [f32(NF4[x] * largest) for x in nibbles(q)]
    add("nf4_nested", nested, 64)
    write(os.path.join(OUT, "blocks.safetensors"), safetensors(tensors))


models()
deepseek()
nested()
blocks()
