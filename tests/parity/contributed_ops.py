#!/usr/bin/env python3
"""The com.microsoft operators that pared knows, one node a model, against onnxruntime: contributed_ops.py RUN_MODEL

Random inputs with a fixed seed. Floats may differ by 1e-5 of the range, quantized results by one unit in at most 1 % of
the elements, where a float stands between two. Exits 77 (skipped) where the packages are missing.
"""
import pathlib
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

from real_models import has_exact_products, run_pared

rng = np.random.default_rng(11)


def u8(*shape):
    return rng.integers(0, 256, shape).astype(np.uint8)


def i8(*shape):
    most = 128 if has_exact_products() else 64
    return rng.integers(-most, most, shape).astype(np.int8)


def f32(*shape):
    return rng.normal(0, 1, shape).astype(np.float32)


def ids(rows, columns, most):
    return rng.integers(0, most, (rows, columns)).astype(np.int32)


def scale(value):
    return np.array(value, np.float32)


def zero(value, dtype=np.uint8):
    return np.array(value, dtype)


def lstm(directions, weights, columns, given):
    """Three sequences of 9 steps; `given`: their lengths, first states and peepholes. `columns` 1: one scale a direction."""
    k, hidden = 10, 12
    params = [directions] if columns == 1 else [directions, 4 * hidden]
    zeros = rng.integers(-3 if weights is i8 else 120, 4 if weights is i8 else 130, params).astype(weights(1).dtype)
    if columns != 1:  # onnxruntime takes no other
        zeros[:] = 0 if weights is i8 else 128
    rest = [f32(directions, 3, hidden), f32(directions, 3, hidden), f32(directions, 3 * hidden)]
    start = [np.array([9, 5, 7], np.int32), *rest] if given else [None] * 4
    return [f32(9, 3, k), weights(directions, k, 4 * hidden), weights(directions, hidden, 4 * hidden), f32(directions, 8 * hidden),
            *start, np.abs(f32(*params)) / 99, zeros, np.abs(f32(*params)) / 99, zeros]


X = (u8(1, 3, 6, 7), scale(0.02), zero(120))
Y = (scale(0.015), zero(10))
# name: inputs (None: left out), attributes, the types of the outputs
CASES = [
    ("QLinearAdd", [u8(2, 3, 4), scale(.1), zero(3), u8(3, 1), scale(.05), zero(200), scale(.12), zero(90)], {}, "b"),
    ("QLinearAdd", [i8(2, 3), scale(.1), zero(4, np.int8), i8(2, 3), scale(.2), zero(-9, np.int8), scale(.21), zero(0, np.int8)], {}, "c"),
    ("QLinearMul", [u8(2, 3, 4), scale(.1), zero(3), u8(4), scale(.05), zero(100), scale(.7), zero(90)], {}, "b"),
    ("QLinearSigmoid", [u8(5, 9), scale(.05), zero(128), scale(1 / 256), zero(0)], {}, "b"),
    ("QLinearLeakyRelu", [u8(5, 9), scale(.05), zero(128), scale(.04), zero(20)], {"alpha": .2}, "b"),
    ("QLinearSoftmax", [u8(5, 9), scale(.05), zero(128), scale(1 / 256), zero(0)], {"axis": -1, "opset": 13}, "b"),
    ("QLinearSoftmax", [u8(3, 4, 5), scale(.05), zero(128), scale(1 / 256), zero(0)], {"axis": 1, "opset": 12}, "b"),
    ("QLinearGlobalAveragePool", [*X, *Y], {}, "b"),
    ("QLinearAveragePool", [*X, *Y], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}, "b"),
    ("QLinearConcat", [scale(.1), zero(100), u8(2, 3), scale(.08), zero(90), u8(2, 5), scale(.1), zero(100)],
     {"axis": 1}, "b"),
    ("QLinearWhere", [u8(4, 5) > 99, u8(4, 5), scale(.1), zero(9), u8(5), scale(.2), zero(7), scale(.2), zero(5)], {},
     "b"),
    ("QGemm", [u8(4, 6), scale(.1), zero(100), i8(6, 5), scale(.02), zero(0, np.int8),
               rng.integers(-900, 900, 5).astype(np.int32), scale(.3), zero(77)], {}, "b"),
    ("QGemm", [u8(4, 6), scale(.1), zero(100), i8(5, 6), np.abs(f32(5)) / 9, np.zeros(5, np.int8), None, None, None],
     {"transB": 1}, "f"),
    ("MatMulIntegerToFloat", [u8(2, 4, 6), i8(6, 5), scale(.1), np.abs(f32(5)), zero(99), np.zeros(5, np.int8), f32(5)],
     {}, "f"),
    ("MatMulIntegerToFloat", [u8(4, 6), u8(6, 5), scale(.1), scale(.2), zero(99), zero(130)], {}, "f"),
    ("DynamicQuantizeMatMul", [f32(4, 6), i8(6, 5), scale(.02), zero(3, np.int8), f32(5)], {}, "f"),
    ("DynamicQuantizeMatMul", [f32(3, 4, 6), u8(6, 5), np.abs(f32(5)), None], {}, "f"),
    ("DynamicQuantizeLSTM", lstm(1, i8, 1, False), {"hidden_size": 12}, "fff"),
    ("DynamicQuantizeLSTM", lstm(1, u8, 1, True), {"hidden_size": 12, "direction": "reverse"}, "fff"),
    ("DynamicQuantizeLSTM", lstm(2, i8, 48, True), {"hidden_size": 12, "direction": "bidirectional"}, "fff"),
    ("DynamicQuantizeLSTM", lstm(2, u8, 48, False), {"hidden_size": 12, "direction": "bidirectional"}, "fff"),
    ("MatMulNBits", [f32(3, 4, 40), u8(5, 2, 16), np.abs(f32(5, 2)), u8(5)],
     {"K": 40, "N": 5, "bits": 4, "block_size": 32}, "f"),
    ("MatMulNBits", [f32(4, 96), u8(7, 3, 16), np.abs(f32(7, 3)), u8(7 * 2)],
     {"K": 96, "N": 7, "bits": 4, "block_size": 32}, "f"),
    ("MatMulNBits", [f32(4, 32), u8(6, 2, 16), f32(6, 2)], {"K": 32, "N": 6, "bits": 8, "block_size": 16}, "f"),
    ("MatMulNBits", [f32(1, 32), u8(6, 2, 16), f32(6, 2), u8(6, 2)], {"K": 32, "N": 6, "bits": 8, "block_size": 16}, "f"),
    ("MatMulNBits", [f32(4, 64), u8(6, 2, 16), np.abs(f32(6, 2)), None, rng.permutation(64).astype(np.int32) // 32],
     {"K": 64, "N": 6, "bits": 4, "block_size": 32}, "f"),
    ("MatMulNBits", [f32(4, 64), u8(6, 2, 16), np.abs(f32(6, 2)), None, None, f32(6)],
     {"K": 64, "N": 6, "bits": 4, "block_size": 32}, "f"),
    ("FusedMatMul", [f32(3, 4, 6), f32(3, 5, 6)], {"transB": 1, "alpha": .5}, "f"),
    ("FusedConv", [f32(1, 3, 6, 6), f32(4, 3, 3, 3), f32(4)], {"activation": "Relu", "kernel_shape": [3, 3]}, "f"),
    ("Gelu", [f32(4, 30) * 3], {}, "f"),
    ("FastGelu", [f32(4, 30), f32(30)], {}, "f"),
    ("QuickGelu", [f32(4, 30)], {"alpha": 1.5}, "f"),
    ("BiasGelu", [f32(4, 30), f32(30)], {}, "f"),
    ("SkipLayerNormalization", [f32(2, 4, 8), f32(2, 4, 8), f32(8), f32(8), f32(8)], {"epsilon": 1e-3}, "f"),
    ("SkipLayerNormalization", [f32(2, 4, 8), f32(2, 4, 8), f32(8)], {}, "f"),
    ("EmbedLayerNormalization", [ids(2, 5, 30), ids(2, 5, 2), f32(30, 8), f32(9, 8), f32(2, 8), f32(8), f32(8),
                                 (ids(2, 5, 3) > 0).astype(np.int32)], {"epsilon": 1e-3}, "fi"),
    ("EmbedLayerNormalization", [ids(2, 5, 30), None, f32(30, 8), f32(9, 8), None, f32(8), f32(8), None, ids(2, 5, 9)],
     {}, "fi"),
    ("Attention", [f32(2, 5, 8), f32(8, 24), f32(24), np.array([3, 5], np.int32)], {"num_heads": 2}, "f"),
    ("Attention", [f32(2, 5, 8), f32(8, 24), f32(24), (ids(2, 5, 4) > 0).astype(np.int32)], {"num_heads": 4, "scale": .3}, "f"),
    ("Attention", [f32(1, 6, 8), f32(8, 24), f32(24)], {"num_heads": 2, "unidirectional": 1}, "f"),
    ("Attention", [f32(1, 6, 8), f32(8, 24), f32(24), None, None, f32(1, 2, 6, 6)], {"num_heads": 2}, "f"),
    ("Attention", [f32(2, 6, 8), f32(8, 28), f32(28)], {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 12]}, "f"),
    ("QAttention", [u8(2, 5, 8), i8(8, 24), f32(24), scale(.02), scale(.01), np.array([4, 5], np.int32), zero(127),
                    zero(0, np.int8)], {"num_heads": 2}, "f"),
    # Decoders: a prompt, a step behind a past of 4, the same packed, and a window; caches of 16 places.
    ("GroupQueryAttention", [f32(1, 5, 64), f32(1, 5, 32), f32(1, 5, 32), None, None, np.array([4], np.int32),
                             np.array(5, np.int32)], {"num_heads": 4, "kv_num_heads": 2}, "fff"),
    ("GroupQueryAttention", [f32(2, 1, 64), f32(2, 1, 32), f32(2, 1, 32), f32(2, 2, 4, 16), f32(2, 2, 4, 16),
                             np.array([4, 4], np.int32), np.array(5, np.int32), f32(16, 8), f32(16, 8)],
     {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1}, "fff"),
    ("GroupQueryAttention", [f32(1, 1, 128), None, None, f32(1, 2, 4, 16), f32(1, 2, 4, 16),
                             np.array([4], np.int32), np.array(5, np.int32), f32(16, 8), f32(16, 8)],
     {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "rotary_interleaved": 1, "scale": .2}, "fff"),
    ("GroupQueryAttention", [f32(1, 1, 64), f32(1, 1, 32), f32(1, 1, 32), f32(1, 2, 9, 16), f32(1, 2, 9, 16),
                             np.array([9], np.int32), np.array(10, np.int32)],
     {"num_heads": 4, "kv_num_heads": 2, "local_window_size": 4}, "fff"),
    ("RotaryEmbedding", [f32(2, 3, 64), ids(2, 3, 16).astype(np.int64), f32(16, 8), f32(16, 8)], {"num_heads": 4}, "f"),
    ("MultiHeadAttention", [f32(2, 1, 8), f32(2, 1, 8), f32(2, 1, 8), None, None, None, f32(2, 2, 4, 4), f32(2, 2, 4, 4)],
     {"num_heads": 2}, "fff"),
    ("MultiHeadAttention", [f32(2, 3, 8), f32(2, 5, 8), f32(2, 5, 8), f32(24)], {"num_heads": 2}, "f"),
    ("MultiHeadAttention", [f32(2, 3, 8), f32(2, 5, 8), f32(2, 5, 8), None, (ids(2, 5, 4) > 0).astype(np.int32)],
     {"num_heads": 2}, "f"),
    ("SkipSimplifiedLayerNormalization", [f32(2, 4, 8), f32(2, 4, 8), f32(8), f32(8)], {"epsilon": 1e-3}, "f"),
]
TYPES = {"b": TensorProto.UINT8, "c": TensorProto.INT8, "f": TensorProto.FLOAT, "i": TensorProto.INT32}


def model_of(op, tensors, attributes, kinds):
    """Inputs whose names begin with 'c' are initializers: onnxruntime asks that of some."""
    names, graph_inputs, initializers = [], [], []
    for i, tensor in enumerate(tensors):
        if tensor is None:
            names.append("")
            continue
        is_scalar_or_weight = tensor.ndim == 0 or i > 0
        names.append(("c" if is_scalar_or_weight else "x") + str(i))
        if op in ("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearWhere") and tensor.ndim > 0:
            names[-1] = "x" + str(i)
        if names[-1][0] == "c":
            initializers.append(numpy_helper.from_array(tensor, names[-1]))
        else:
            dtype = helper.np_dtype_to_tensor_dtype(tensor.dtype)
            graph_inputs.append(helper.make_tensor_value_info(names[-1], dtype, tensor.shape))
    while names[-1] == "":
        names.pop()
    outputs = [f"y{i}" for i in range(len(kinds))]
    node = helper.make_node(op, names, outputs, domain="com.microsoft", **attributes)
    infos = [helper.make_tensor_value_info(name, TYPES[kind], None) for name, kind in zip(outputs, kinds)]
    graph = helper.make_graph([node], "g", graph_inputs, infos, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def fault_of(got, wanted):
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        return f"{got.dtype}{got.shape} instead of {wanted.dtype}{wanted.shape}"
    distance = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    if wanted.dtype.kind == "f":
        worst = distance.max() / np.ptp(wanted)
        return "" if worst <= 1e-5 else f"differs by {worst:.1e} of the range"
    if distance.max() > 1 or (distance > 0).sum() > max(1, 0.01 * distance.size):
        return f"differs by up to {distance.max():.0f} units, {(distance > 0).sum()} of {distance.size} elements"
    return ""


def main():
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1  # with more, DynamicQuantizeLSTM finds scales for parts of a batch
    failed = 0
    for i, (op, tensors, attributes, kinds) in enumerate(CASES):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.onnx"
            onnx.save(model_of(op, tensors, attributes, kinds), path)
            try:
                session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
                feeds = {v.name: tensors[int(v.name[1:])] for v in session.get_inputs()}
                got = run_pared(sys.argv[1], path, feeds, [], folder)
                faults = [fault_of(a, b) for a, b in zip(got, session.run(None, feeds))]
                fault = "; ".join(f for f in faults if f)
            except RuntimeError as e:
                fault = str(e)
        failed += bool(fault)
        print(f"{'FAILED' if fault else 'ok'} {i} {op} {fault}")
    print(f"{len(CASES) - failed} of {len(CASES)} agree")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
