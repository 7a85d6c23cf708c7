#!/usr/bin/env python3
"""Passes over models with sequences, spectra and a decoder's attention, against onnxruntime: op_models.py RUN_PASS RUN_MODEL

Small models with random weights. Each pass runs on each; onnxruntime and pared run what it wrote on inputs that the
calibration has not seen. Figures are the worst difference of any output as a part of its range: between the two, and of
onnxruntime to the float model. Exits 77 (skipped) where the packages are missing.
"""
import json
import pathlib
import subprocess
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

from real_models import run_exactly, run_pared

rng = np.random.default_rng(5)
node = helper.make_node

# pass: options, most between pared and onnxruntime, most to the float model (None: it is not to stay near)
PASSES = {
    "fold_constants": ({}, 1e-6, 1e-6),
    "remove_identities": ({}, 1e-6, 1e-6),
    "fuse_patterns": ({}, 1e-6, 1e-6),
    "quantize_int8": ({}, 0.02, 0.08),  # one step of the last activation
    "quantize_dynamic": ({}, 0.02, 0.05),
    "quantize_weights": ({}, 0.02, 0.05),  # onnxruntime's MatMulNBits rounds activations
    "cast_fp16": ({}, 0.005, 0.005),
    "magnitude_prune": ({"sparsity": 0.5}, 1e-6, None),
}


def f32(*shape):
    return rng.normal(0, 1, shape).astype(np.float32)


def model(nodes, inputs, outputs, constants):
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", infos, results,
                              [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def sequences():
    """As exporters of detectors write lists of tensors."""
    nodes = [node("MatMul", ["x", "w1"], ["a"]), node("Relu", ["a"], ["r"]),
             node("SplitToSequence", ["r"], ["s"], axis=0, keepdims=1), node("SequenceAt", ["s", "one"], ["b"]),
             node("SequenceInsert", ["s", "b"], ["t"]), node("ConcatFromSequence", ["t"], ["c"], axis=0),
             node("MatMul", ["c", "w2"], ["d"]), node("Add", ["d", "b2"], ["e"]), node("Optional", ["e"], ["o"]),
             node("OptionalGetElement", ["o"], ["y"])]
    return model(nodes, {"x": [4, 32]}, ["y"], {"w1": f32(32, 64), "w2": f32(64, 16), "b2": f32(16), "one": np.int64(1)})


def spectra():
    """The front of an audio network: log-mel energies, then a layer."""
    nodes = [node("STFT", ["x", "step", "window"], ["s"], onesided=1),
             node("ReduceSumSquare", ["s", "parts"], ["power"], keepdims=0), node("MatMul", ["power", "mel"], ["m"]),
             node("Add", ["m", "floor"], ["n"]), node("Log", ["n"], ["l"]), node("MatMul", ["l", "w"], ["y"])]
    return model(nodes, {"x": [1, 400, 1]}, ["y"],
                 {"step": np.int64(40), "window": np.hanning(80).astype(np.float32), "parts": np.array([-1]),
                  "mel": np.abs(f32(41, 20)), "floor": np.float32([.01]), "w": f32(20, 16)})


def decoder():
    """One step of a decoder layer behind a cache of four tokens."""
    nodes = [node("MatMul", ["x", "wq"], ["q"]), node("MatMul", ["x", "wk"], ["k"]), node("MatMul", ["x", "wv"], ["v"]),
             node("GroupQueryAttention", ["q", "k", "v", "pk", "pv", "n", "t", "cos", "sin"], ["a", "nk", "nv"],
                  domain="com.microsoft", num_heads=4, kv_num_heads=2, do_rotary=1), node("MatMul", ["a", "wo"], ["y"])]
    cache = [1, 2, 4, 16]
    return model(nodes, {"x": [1, 1, 64], "pk": cache, "pv": cache}, ["y", "nk", "nv"],
                 {"wq": f32(64, 64), "wk": f32(64, 32), "wv": f32(64, 32), "wo": f32(64, 64), "n": np.int32([4]),
                  "t": np.int32(5), "cos": f32(16, 8), "sin": f32(16, 8)})


def recurrent():
    """A reader of lines: a layer both ways behind a projection, as text recognizers end."""
    nodes = [node("MatMul", ["x", "w1"], ["a"]),
             node("LSTM", ["a", "w", "r", "b"], ["s", "h"], hidden_size=24, direction="bidirectional"),
             node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3]), node("Reshape", ["t", "flat"], ["f"]),
             node("MatMul", ["f", "w2"], ["y"])]
    return model(nodes, {"x": [12, 2, 16]}, ["y", "h"],
                 {"w1": f32(16, 32) / 4, "w": f32(2, 96, 32) / 6, "r": f32(2, 96, 24) / 5, "b": f32(2, 192) / 9,
                  "flat": np.array([12, 2, 48]), "w2": f32(48, 20) / 7})


def distance(got, wanted):
    return max(np.abs(a.astype(np.float64) - b).max() / np.ptp(b) for a, b in zip(got, wanted, strict=True))


def main():
    run_pass, run_model = sys.argv[1:3]
    failed = 0
    for make in (sequences, spectra, decoder, recurrent):
        original = make()
        feeds = {i.name: f32(*[d.dim_value for d in i.type.tensor_type.shape.dim]) for i in original.graph.input}
        with tempfile.TemporaryDirectory() as folder:
            source, written = pathlib.Path(folder, "in.onnx"), pathlib.Path(folder, "out.onnx")
            onnx.save(original, source)
            exact = ort.InferenceSession(str(source)).run(None, feeds)
            for name, (options, most_apart, most_lost) in PASSES.items():
                subprocess.run([run_pass, source, written, json.dumps([{"pass": name, **options}])], check=True,
                               stdout=subprocess.DEVNULL, timeout=100)
                wanted = run_exactly(written, feeds)
                apart, lost = distance(run_pared(run_model, written, feeds, [], folder), wanted), distance(wanted, exact)
                is_bad = not apart <= most_apart or (most_lost is not None and not lost <= most_lost)
                failed += is_bad
                print(f"{'FAILED' if is_bad else 'ok'} {make.__name__} {name}: pared to onnxruntime {apart:.1e}, "
                      f"onnxruntime to the float model {lost:.1e}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
