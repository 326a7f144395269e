"""Writes models of noise in the shape of a GGUF file's model as ONNX, for transformers.js: the graph of the exports on model
hubs (attention with its cache in one operator, norms fused with their sums), in the types that its users choose from.

usage: python onnx_model.py MODEL.gguf FOLDER

FOLDER gets config.json and onnx/model.onnx (fp32), onnx/model_quantized.onnx (q8), onnx/model_q4.onnx (q4). Operators of the
domain com.microsoft are those of ONNX Runtime's docs/ContribOperators.md.
"""

import json
import pathlib
import sys

import numpy as np
from gguf import GGUFReader
from onnx import TensorProto, helper, numpy_helper, save_model

BLOCK = 32


class Graph:
    """Nodes and weights of one model, in one type of weights."""

    def __init__(self, kind, seed=1):
        self.kind, self.nodes, self.weights, self.noise = kind, [], [], np.random.default_rng(seed)

    def add(self, name, array):
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator, inputs, name, outputs=1, domain="", **attributes):
        """Adds an operator; gives its first output, or all of them in a list."""
        names = [name] + [f"{name}.{number}" for number in range(1, outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=f"{name}/{operator}", domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def fused(self, operator, inputs, name, outputs=1, **attributes):
        return self.node(operator, inputs, name, outputs, "com.microsoft", **attributes)

    def norm(self, x, width, name):
        return self.node("SimplifiedLayerNormalization", [x, self.add(f"{name}.weight", np.ones(width, np.float32))], name, epsilon=1e-6, axis=-1)

    def product(self, x, columns, rows, name):
        """`x` (.., columns) times a matrix of noise: (.., rows)."""
        matrix = self.noise.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(columns))
        return getattr(self, f"product_{self.kind}")(x, matrix, name)

    def product_fp32(self, x, matrix, name):
        return self.node("MatMul", [x, self.add(f"{name}.weight", np.ascontiguousarray(matrix.T))], name)

    def product_q4(self, x, matrix, name):
        """Blocks of 32 with a scale each, as the exporters' `MatMulNBits` has them; the products are rounded to 8 bits."""
        rows, columns = matrix.shape
        blocks = matrix.reshape(rows, columns // BLOCK, BLOCK)
        scales = np.abs(blocks).max(axis=2) / 7
        codes = np.clip(np.rint(blocks / scales[..., None]) + 8, 0, 15).astype(np.uint8)
        packed = codes[..., 0::2] | codes[..., 1::2] << 4
        inputs = [x, self.add(f"{name}.codes", packed), self.add(f"{name}.scales", scales.reshape(-1).astype(np.float32))]
        return self.fused("MatMulNBits", inputs, name, K=columns, N=rows, bits=4, block_size=BLOCK, accuracy_level=4)

    def product_q8(self, x, matrix, name):
        """What ONNX Runtime's dynamic quantisation writes: activations of 8 bits by range, one scale for a matrix."""
        scale = np.abs(matrix).max() / 127
        codes = np.ascontiguousarray(np.rint(matrix / scale).astype(np.int8).T)
        rounded, step, zero = self.node("DynamicQuantizeLinear", [x], f"{name}.rounded", 3)
        weight = [self.add(f"{name}.codes", codes), zero, self.add(f"{name}.zero", np.array(0, np.int8))]
        integers = self.node("MatMulInteger", [rounded, *weight], f"{name}.integers")
        as_float = self.node("Cast", [integers], f"{name}.float", to=TensorProto.FLOAT)
        both = self.node("Mul", [step, self.add(f"{name}.scale", np.array(scale, np.float32))], f"{name}.both")
        return self.node("Mul", [as_float, both], name)


def build(shape, kind):
    """The model as one graph: `input_ids`, `attention_mask`, `num_logits_to_keep` and the cache in, logits and the cache out."""
    graph = Graph(kind)
    dim, heads, kv_heads, head_dim, context = (shape[key] for key in ("dim", "heads", "kv_heads", "head_dim", "context"))
    one = graph.add("one", np.array([1], np.int64))
    angles = np.outer(np.arange(context), shape["rope_base"] ** (-np.arange(0, head_dim, 2) / head_dim))
    rotation = [graph.add("cos", np.cos(angles).astype(np.float32)), graph.add("sin", np.sin(angles).astype(np.float32))]
    filled = graph.node("ReduceSum", ["attention_mask", one], "filled", keepdims=1)
    before = graph.node("Cast", [graph.node("Sub", [filled, one], "last")], "seqlens_k", to=TensorProto.INT32)
    length = graph.node("Gather", [graph.node("Shape", ["attention_mask"], "mask_shape"), graph.add("second", np.array(1, np.int64))], "length")
    total = graph.node("Cast", [length], "total_length", to=TensorProto.INT32)

    table = graph.noise.standard_normal((shape["vocab"], dim), np.float32)
    stream = graph.node("Gather", [graph.add("embed.weight", table), "input_ids"], "embed")
    normed = graph.norm(stream, dim, "layers.0.input_norm")
    for layer in range(shape["layers"]):
        at = f"layers.{layer}"
        parts = []
        for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            made = graph.product(normed, dim, count * head_dim, f"{at}.{part}")
            if part != "v":
                apart = graph.node("Reshape", [made, graph.add(f"{at}.{part}.heads", np.array([0, -1, head_dim], np.int64))], f"{at}.{part}.apart")
                whole = graph.add(f"{at}.{part}.whole", np.array([0, -1, count * head_dim], np.int64))
                made = graph.node("Reshape", [graph.norm(apart, head_dim, f"{at}.{part}.norm"), whole], f"{at}.{part}.together")
            parts.append(made)
        past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        graph.nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [*parts, *past, before, total, *rotation],
                [f"{at}.attention", f"present.{layer}.key", f"present.{layer}.value"],
                name=f"{at}.attention",
                domain="com.microsoft",
                num_heads=heads,
                kv_num_heads=kv_heads,
                scale=head_dim**-0.5,
                do_rotary=1,
                rotary_interleaved=0,
            )
        )
        added = graph.product(f"{at}.attention", heads * head_dim, dim, f"{at}.o")
        normed, stream = skip_norm(graph, stream, added, dim, f"{at}.ffn_norm")
        gate = graph.product(normed, dim, shape["ffn"], f"{at}.gate")
        silu = graph.node("Mul", [gate, graph.node("Sigmoid", [gate], f"{at}.sigmoid")], f"{at}.silu")
        both = graph.node("Mul", [silu, graph.product(normed, dim, shape["ffn"], f"{at}.up")], f"{at}.both")
        added = graph.product(both, shape["ffn"], dim, f"{at}.down")
        after = "norm" if layer + 1 == shape["layers"] else f"layers.{layer + 1}.input_norm"
        normed, stream = skip_norm(graph, stream, added, dim, after)
    # Only the last positions' logits, as exports with `num_logits_to_keep` have it.
    start = graph.node("Neg", [graph.node("Reshape", ["num_logits_to_keep", one], "kept")], "start")
    ends = [graph.add("end", np.array([np.iinfo(np.int64).max])), one]
    kept = graph.node("Slice", [normed, start, *ends], "kept_rows")
    graph.product(kept, dim, shape["vocab"], "logits")

    cache = lambda name, length: [
        helper.make_tensor_value_info(f"{name}.{layer}.{part}", TensorProto.FLOAT, ["batch_size", kv_heads, length, head_dim])
        for layer in range(shape["layers"])
        for part in ("key", "value")
    ]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "length"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "total"]),
        helper.make_tensor_value_info("num_logits_to_keep", TensorProto.INT64, []),
        *cache("past_key_values", "past"),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", "kept", shape["vocab"]]), *cache("present", "total")]
    made = helper.make_graph(graph.nodes, "model", inputs, outputs, graph.weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def skip_norm(graph, stream, added, dim, name):
    """The norm of the sum, and the sum."""
    weight = graph.add(f"{name}.weight", np.ones(dim, np.float32))
    outputs = [name, "", "", f"{name}.sum"]
    graph.nodes.append(helper.make_node("SkipSimplifiedLayerNormalization", [stream, added, weight], outputs, name=name, domain="com.microsoft", epsilon=1e-6))
    return name, f"{name}.sum"


def shape_of(path):
    """The shape that a GGUF file of the architecture qwen3 tells."""
    fields = GGUFReader(path).fields
    number = lambda key: fields[f"qwen3.{key}"].contents()
    architecture = fields["general.architecture"].contents()
    if architecture != "qwen3":
        sys.exit(f"{path}: only models of the architecture qwen3 are written as ONNX, not {architecture}")
    return {
        "dim": number("embedding_length"),
        "layers": number("block_count"),
        "heads": number("attention.head_count"),
        "kv_heads": number("attention.head_count_kv"),
        "head_dim": number("attention.key_length"),
        "ffn": number("feed_forward_length"),
        "context": number("context_length"),
        "rope_base": number("rope.freq_base"),
        "vocab": len(fields["tokenizer.ggml.tokens"].data),
    }


def main():
    source, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    shape = shape_of(source)
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    for kind, name in (("fp32", "model"), ("q8", "model_quantized"), ("q4", "model_q4")):
        save_model(build(shape, kind), folder / "onnx" / f"{name}.onnx")
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": shape["dim"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "head_dim": shape["head_dim"],
        "intermediate_size": shape["ffn"],
        "vocab_size": shape["vocab"],
        "max_position_embeddings": shape["context"],
    }
    # Last: a folder with this file is whole.
    (folder / "config.json").write_text(json.dumps(config))


main()
