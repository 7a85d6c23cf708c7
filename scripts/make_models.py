#!/usr/bin/env python3
"""Make ONNX files out of fetched weights that their packages ship in another format.

usage: make_models.py [--cache DIR] [NAME...]

The weights are the published ones, byte for byte; only the graph around them is
written here, from the published architecture. Needs the Python packages numpy and
onnx (no torch). Run fetch_models first.

  efficientnet-lite0         EfficientNet-Lite0 (legacy torch .pth)   -> efficientnet_lite0.onnx
  all-minilm-l6              all-MiniLM-L6-v2 BERT (safetensors)      -> all_minilm_l6_v2.onnx
  all-minilm-l6-external     the same, weights in an external file    -> all_minilm_l6_v2_ext.onnx + .data
  isnet-fp32                 ISNet, its fp16 weights widened to fp32  -> isnet_fp32.onnx (176 MB)
"""
import argparse
import collections
import json
import os
import pickle
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STORAGES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "DoubleStorage": np.float64,
            "LongStorage": np.int64, "IntStorage": np.int32}


class _StateDictUnpickler(pickle.Unpickler):
    """Reads only tensors and ordered dicts; any other class in the file is an error."""

    def find_class(self, module, name):
        if name == "OrderedDict":
            return collections.OrderedDict
        if name in STORAGES:
            return name
        if name == "_rebuild_tensor_v2":
            return lambda storage, offset, size, stride, *rest: (storage, offset, tuple(size), tuple(stride))
        raise pickle.UnpicklingError(f"unexpected class {module}.{name}")

    def persistent_load(self, pid):
        return pid[1], pid[2]  # storage type, storage key


def load_legacy_pth(path):
    """A state dict saved by torch before 1.6 (a run of pickles, not a zip)."""
    with open(path, "rb") as f:
        if pickle.load(f) != 0x1950A86A20F9469CFC6C:
            raise ValueError(f"{path}: not a legacy torch file")
        pickle.load(f)  # protocol version
        pickle.load(f)  # type sizes of the machine that wrote it
        tensors = _StateDictUnpickler(f).load()
        keys = pickle.load(f)
        kinds = {storage[1]: storage[0] for storage, *_ in tensors.values()}
        data = {}
        for key in keys:
            dtype = np.dtype(STORAGES[kinds[key]])
            count = struct.unpack("<q", f.read(8))[0]
            data[key] = np.frombuffer(f.read(count * dtype.itemsize), dtype)
    out = {}
    for name, (storage, offset, size, stride) in tensors.items():
        flat = data[storage[1]][offset:]
        out[name] = np.lib.stride_tricks.as_strided(flat, size, [s * flat.itemsize for s in stride]).copy()
    return out


def load_safetensors(path):
    kinds = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        base = f.tell()
        out = {}
        for name, info in header.items():
            if name == "__metadata__":
                continue
            begin, end = info["data_offsets"]
            f.seek(base + begin)
            out[name] = np.frombuffer(f.read(end - begin), kinds[info["dtype"]]).reshape(info["shape"])
    return out


class Graph:
    def __init__(self):
        self.nodes, self.initializers = [], []

    def weight(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def model(self, name, inputs, outputs, opset):
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        model = helper.make_model(graph, producer_name="pared make_models.py", ir_version=8,
                                  opset_imports=[helper.make_opsetid("", opset)])
        onnx.checker.check_model(model)
        return model


# repeats, kernel, stride, expansion, output channels: EfficientNet-Lite0 as published
LITE0 = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
         (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]


def efficientnet_lite0(w):
    g = Graph()
    size = 224

    def conv_bn(x, conv, bn, kernel=1, stride=1, groups=1, relu6=True):
        nonlocal size
        after = -(-size // stride)
        pad = max((after - 1) * stride + kernel - size, 0)  # TensorFlow's SAME, often asymmetric
        low, high = pad // 2, pad - pad // 2
        size = after
        x = g.op("Conv", [x, g.weight(conv + ".weight", w[conv + ".weight"])], conv,
                 kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[low, low, high, high], group=groups)
        parts = [g.weight(f"{bn}.{p}", w[f"{bn}.{p}"]) for p in ("weight", "bias", "running_mean", "running_var")]
        x = g.op("BatchNormalization", [x] + parts, bn, epsilon=1e-3)
        return g.op("Clip", [x, "zero", "six"], bn + ".relu6") if relu6 else x

    g.weight("zero", np.float32(0))
    g.weight("six", np.float32(6))
    x = conv_bn("input", "_conv_stem", "_bn0", kernel=3, stride=2)
    channels, index = 32, 0
    for repeats, kernel, stride, expansion, out in LITE0:
        for r in range(repeats):
            p, skip, s = f"_blocks.{index}.", x, stride if r == 0 else 1
            wide = channels * expansion
            if expansion != 1:
                x = conv_bn(x, p + "_expand_conv", p + "_bn0")
            x = conv_bn(x, p + "_depthwise_conv", p + "_bn1", kernel=kernel, stride=s, groups=wide)
            x = conv_bn(x, p + "_project_conv", p + "_bn2", relu6=False)
            if s == 1 and channels == out:
                x = g.op("Add", [x, skip], p + "add")
            channels, index = out, index + 1
    x = conv_bn(x, "_conv_head", "_bn1")
    x = g.op("GlobalAveragePool", [x], "pool")
    x = g.op("Flatten", [x], "flat", axis=1)
    g.op("Gemm", [x, g.weight("_fc.weight", w["_fc.weight"]), g.weight("_fc.bias", w["_fc.bias"])], "logits", transB=1)
    return g.model("efficientnet_lite0",
                   [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 224, 224])],
                   [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])], 13)


def bert(w, layers=6, hidden=384, heads=12, eps=1e-12):
    """BERT encoder with the mean pooling of sentence-transformers (not normalized)."""
    g = Graph()

    def const(name, value):
        return g.weight(name, np.asarray(value))

    def norm(x, p):
        return g.op("LayerNormalization", [x, g.weight(p + ".weight", w[p + ".weight"]),
                                           g.weight(p + ".bias", w[p + ".bias"])], p, axis=-1, epsilon=eps)

    def linear(x, p):
        x = g.op("MatMul", [x, g.weight(p + ".weight", w[p + ".weight"].T)], p + ".matmul")
        return g.op("Add", [x, g.weight(p + ".bias", w[p + ".bias"])], p)

    def split_heads(x, p, perm):
        x = g.op("Reshape", [x, "heads_shape"], p + ".heads")
        return g.op("Transpose", [x], p + ".t", perm=perm)

    const("heads_shape", np.array([0, 0, heads, hidden // heads], np.int64))
    const("merge_shape", np.array([0, 0, hidden], np.int64))
    const("axes12", np.array([1, 2], np.int64))
    const("axis2", np.array([2], np.int64))
    const("axis1", np.array([1], np.int64))
    const("zero64", np.array([0], np.int64))
    const("one", np.float32(1))
    const("half", np.float32(0.5))
    const("sqrt2", np.float32(np.sqrt(2)))
    const("scale", np.float32(np.sqrt(hidden // heads)))
    const("minus_big", np.float32(-1e9))
    const("tiny", np.float32(1e-9))
    e = "embeddings."
    words = g.op("Gather", [g.weight(e + "word", w[e + "word_embeddings.weight"]), "input_ids"], e + "words")
    types = g.op("Gather", [g.weight(e + "type", w[e + "token_type_embeddings.weight"]), "token_type_ids"], e + "types")
    shape = g.op("Shape", ["input_ids"], "ids_shape")
    length = g.op("Gather", [shape, const("one64", np.array([1], np.int64))], "length", axis=0)
    positions = g.op("Slice", [g.weight(e + "position", w[e + "position_embeddings.weight"]), "zero64", length, "zero64"],
                     e + "positions")
    x = g.op("Add", [g.op("Add", [words, types], e + "sum"), positions], e + "all")
    x = norm(x, e + "LayerNorm")
    mask = g.op("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    g.op("Mul", [g.op("Sub", ["one", g.op("Unsqueeze", [mask, "axes12"], "mask4")], "inverse"), "minus_big"], "bias")
    for i in range(layers):
        p = f"encoder.layer.{i}."
        a = p + "attention.self."
        q = split_heads(linear(x, a + "query"), a + "query", [0, 2, 1, 3])
        k = split_heads(linear(x, a + "key"), a + "key", [0, 2, 3, 1])
        v = split_heads(linear(x, a + "value"), a + "value", [0, 2, 1, 3])
        scores = g.op("Div", [g.op("MatMul", [q, k], a + "qk"), "scale"], a + "scaled")
        scores = g.op("Softmax", [g.op("Add", [scores, "bias"], a + "masked")], a + "softmax", axis=-1)
        y = g.op("Transpose", [g.op("MatMul", [scores, v], a + "av")], a + "back", perm=[0, 2, 1, 3])
        y = linear(g.op("Reshape", [y, "merge_shape"], a + "merged"), p + "attention.output.dense")
        x = norm(g.op("Add", [x, y], p + "attention.add"), p + "attention.output.LayerNorm")
        y = linear(x, p + "intermediate.dense")
        erf = g.op("Erf", [g.op("Div", [y, "sqrt2"], p + "gelu.div")], p + "gelu.erf")
        y = g.op("Mul", [g.op("Mul", [y, g.op("Add", [erf, "one"], p + "gelu.add")], p + "gelu.mul"), "half"], p + "gelu")
        y = linear(y, p + "output.dense")
        x = norm(g.op("Add", [x, y], p + "output.add"), p + "output.LayerNorm")
    x = g.op("Identity", [x], "last_hidden_state")
    mask3 = g.op("Unsqueeze", [mask, "axis2"], "mask3")
    total = g.op("ReduceSum", [g.op("Mul", [x, mask3], "kept"), "axis1"], "total", keepdims=0)
    count = g.op("Max", [g.op("ReduceSum", [mask3, "axis1"], "count", keepdims=0), "tiny"], "count_safe")
    g.op("Div", [total, count], "sentence_embedding")
    ids = ["batch", "sequence"]
    return g.model("all_minilm_l6_v2",
                   [helper.make_tensor_value_info(n, TensorProto.INT64, ids)
                    for n in ("input_ids", "attention_mask", "token_type_ids")],
                   [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ids + [hidden]),
                    helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", hidden])], 17)


def widen_fp16(model):
    """fp16 tensors and casts become fp32; the graph stays as it is."""
    for t in model.graph.initializer:
        if t.data_type == TensorProto.FLOAT16:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))
    for node in model.graph.node:
        for a in node.attribute:
            if a.type == onnx.AttributeProto.TENSOR and a.t.data_type == TensorProto.FLOAT16:
                a.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(a.t).astype(np.float32), a.t.name))
            if node.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT16:
                a.i = TensorProto.FLOAT
    for value in list(model.graph.value_info) + list(model.graph.input) + list(model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model  # not checked: the shipped graph is not in topological order, and neither is this one


def make(name, cache):
    def source(*parts):
        path = os.path.join(cache, *parts)
        if not os.path.exists(path):
            sys.exit(f"{path} is missing: run fetch_models first")
        return path

    out = os.path.join(cache, "made")
    os.makedirs(out, exist_ok=True)
    if name == "efficientnet-lite0":
        target = os.path.join(out, "efficientnet_lite0.onnx")
        onnx.save(efficientnet_lite0(load_legacy_pth(source("efficientnet-lite0", "efficientnet-lite0-57934424.pth"))), target)
    elif name.startswith("all-minilm-l6"):
        model = bert(load_safetensors(source("all-minilm-l6", "model.safetensors")))
        target = os.path.join(out, "all_minilm_l6_v2.onnx")
        if name.endswith("external"):
            target = os.path.join(out, "all_minilm_l6_v2_ext.onnx")
            data = "all_minilm_l6_v2_ext.onnx.data"
            if os.path.exists(os.path.join(out, data)):
                os.remove(os.path.join(out, data))  # onnx.save appends to an old one
            onnx.save(model, target, save_as_external_data=True, location=data, size_threshold=1024)
        else:
            onnx.save(model, target)
    else:
        target = os.path.join(out, "isnet_fp32.onnx")
        onnx.save(widen_fp16(onnx.load(source("isnet", "isnet_fp16.onnx"))), target)
    print(target, os.path.getsize(target))


def main():
    names = ["efficientnet-lite0", "all-minilm-l6", "all-minilm-l6-external", "isnet-fp32"]
    parser = argparse.ArgumentParser(description="Make ONNX files out of fetched weights.")
    parser.add_argument("--cache", default=os.environ.get("PARED_MODELS") or
                        os.path.join(os.path.expanduser("~"), ".cache", "pared-models"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + ", ".join(names) + " (default: all)")
    args = parser.parse_args()
    unknown = set(args.names) - set(names)
    if unknown:
        parser.error("unknown: " + ", ".join(sorted(unknown)))
    for name in args.names or names:
        make(name, args.cache)


if __name__ == "__main__":
    main()
