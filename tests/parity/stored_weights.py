"""Runs what quantize_weights writes in onnxruntime, against products of NumPy with the float weights.

python stored_weights.py RUN_PASS
"""
import json
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def model(table, left, right, kernel):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]),
             helper.make_node("MatMul", ["e", "left"], ["a"]),
             helper.make_node("Gemm", ["a", "right"], ["b"], transB=1),
             helper.make_node("Reshape", ["b", "shape"], ["c"]),
             helper.make_node("Conv", ["c", "kernel"], ["y"])]
    constants = {"table": table, "left": left, "right": right, "kernel": kernel,
                 "shape": np.array([1, 16, 2, 8], np.int64)}
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("ids", TensorProto.INT64, [4])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 24, 2, 8])],
                              [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(path, ids, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # float activations
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"ids": ids})[0]


def main():
    rng = np.random.default_rng(5)
    table, left, right = (rng.standard_normal(s, np.float32) for s in [(40, 48), (48, 96), (64, 96)])
    kernel = rng.standard_normal((24, 16, 1, 1), np.float32)
    ids = np.array([3, 39, 0, 17], np.int64)
    c = (table[ids] @ left @ right.T).reshape(16, 16)
    want = (kernel[:, :, 0, 0] @ c).reshape(1, 24, 2, 8)
    # Roundings of about 43 dB each (8 bits, by channel) or 20 dB (4 bits, by block) add up. In blocks of
    # 32 the convolution has too few input channels and keeps 8 bits.
    cases = [(bits, size, {**form, **scheme}, least_db) for bits, size, least_db in [("8", 32, 34), ("4", 16, 12), ("4", 32, 12)]
             for form in ({}, {"format": "matmulnbits"}) for scheme in ({}, {"scheme": "symmetric"})]
    for bits, size, more, least_db in cases:
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(model(table, left, right, kernel), folder + "/in.onnx")
            passes = json.dumps([{"pass": "quantize_weights", "bits": bits, "block_size": size, **more}])
            subprocess.run([sys.argv[1], folder + "/in.onnx", folder + "/out.onnx", passes, "random", "1"], check=True,
                           stdout=subprocess.DEVNULL)
            onnx.checker.check_model(folder + "/out.onnx", full_check=True)
            got = run(folder + "/out.onnx", ids, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
            plain = run(folder + "/out.onnx", ids, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
        # onnxruntime turns blocks into operators of its own, which once misread those along axis 0.
        np.testing.assert_allclose(got, plain, rtol=0, atol=1e-4 * np.abs(plain).max())
        sqnr_db = 10 * np.log10((want ** 2).sum() / ((want - got) ** 2).sum())
        print(f"{bits} bits, blocks of {size} {more}: {sqnr_db:.1f} dB")
        if sqnr_db < least_db:
            sys.exit(f"less than {least_db} dB")


if __name__ == "__main__":
    main()
