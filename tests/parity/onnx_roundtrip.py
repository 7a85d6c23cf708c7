"""Real ONNX files through load and save, and through shape inference: onnx_roundtrip.py RESAVE DUMP_SHAPES

For each file: peak memory of resave at most 1.2 times the file and its external data plus 16 MB (the program itself);
outputs of the re-saved file equal to the original's bit for bit in onnxruntime, on random inputs; where onnxruntime
cannot load the original, the parsed messages are equal. Files whose tensors lie in raw_data, in field order and in
topological order, must come out byte for byte. Shapes must not contradict the onnx package's inference.

Exits 77 (skipped) where the models or the packages are missing.
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
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

CONSTANT_BYTES = 16 << 20
# Typed data fields become raw_data; nodes out of order are sorted; external data comes in.
CHANGED = {"mnist-conv.onnx", "isnet_uint8.onnx", "ch_ppocr_mobile_v2.0_cls_infer.onnx", "silero_vad.onnx",
           "isnet_fp16.onnx", "isnet_fp32.onnx", "all_minilm_l6_v2_ext.onnx"}
NO_ORT = {"espcn_x2_qonnx.onnx", "espcn_x3_qonnx.onnx"}
# Dimensions that the graph needs to agree among its inputs, where the symbols do not tell.
SIZES = {"batch": 1, "N": 1, "sequence": 8, "phonemes": 12}
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
          "tensor(float16)": np.float16, "tensor(bool)": bool}


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Optimizations may depend on how tensors are stored; the question is what the file says.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs_of(path, model):
    """Random inputs; shapes that the file leaves open by what the kind of model takes."""
    rng = np.random.default_rng(7)
    feeds = {}
    for value in model.get_inputs():
        shape = []
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int) and dim > 0:
                shape.append(dim)
            elif axis == 0:
                shape.append(1)
            elif "silero" in str(path):
                shape.append(576 if value.name == "input" else 1 if axis == 1 else 128)
            elif len(value.shape) == 4:
                shape.append({1: 3, 2: 64 if "det" in str(path) else 48, 3: 96}[axis] if "rapidocr" in str(path) else 224)
            else:
                shape.append(SIZES.get(dim, 8))
        dtype = DTYPES[value.type]
        if dtype is np.int64 or dtype is np.int32:
            data = np.ones(shape, dtype)
            if value.name == "sr":
                data = np.array(16000, dtype)
            elif value.name == "input_lengths":
                data = np.array([8], dtype)
        elif value.name == "scales":
            data = np.array([0, 1, 0], np.float32)
        else:
            data = rng.random(shape, np.float32).astype(dtype)
        feeds[value.name] = data
    return feeds


def check_outputs(path, saved):
    a, b = session(path), session(saved)
    feeds = inputs_of(path, a)
    for name, x, y in zip([o.name for o in a.get_outputs()], a.run(None, feeds), b.run(None, feeds)):
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes(), f"output {name} differs"


def check_shapes(path, dump_shapes):
    text = subprocess.run([dump_shapes, path], check=True, capture_output=True, text=True).stdout
    ours = dict((line.split("\t")[0], line.split("\t")[1:]) for line in text.splitlines())
    model = onnx.load(path, load_external_data=False)
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    compared = 0
    for value in inferred.graph.value_info:
        if value.name not in ours or not value.type.HasField("tensor_type"):
            continue
        dtype, dims = ours[value.name]
        tensor = value.type.tensor_type
        assert int(dtype) in (0, tensor.elem_type), f"{value.name}: element type {dtype}"
        if dims == "unranked" or not tensor.HasField("shape"):
            continue
        compared += 1
        dims = dims.split()
        assert len(dims) == len(tensor.shape.dim), f"{value.name}: rank {len(dims)}"
        for x, y in zip(dims, tensor.shape.dim):
            if x != "?" and y.HasField("dim_value") and y.dim_value >= 0:
                assert int(x) == y.dim_value, f"{value.name}: {dims}, not {tensor.shape.dim}"
    return compared


def check_file(path, resave, dump_shapes):
    size = path.stat().st_size + sum(p.stat().st_size for p in path.parent.glob(path.name + "*.data"))
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder) / path.name
        peak = int(subprocess.run([resave, path, saved], check=True, capture_output=True, text=True).stdout)
        assert peak <= 1.2 * size + CONSTANT_BYTES, f"peak memory {peak} for {size} bytes"
        same = path.read_bytes() == saved.read_bytes()
        assert same or path.name in CHANGED, "should come out byte for byte"
        if path.name in NO_ORT:
            assert onnx.load(path) == onnx.load(saved), "messages differ"
        else:
            check_outputs(path, saved)
        compared = check_shapes(path, dump_shapes) if size < 100e6 else 0
    print(f"{path.name}: {size} bytes, peak {peak}, {'byte for byte' if same else 'equal outputs'}, "
          f"{compared} shapes compared")


def main():
    resave, dump_shapes = sys.argv[1:3]
    root = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))
    paths = sorted(root.glob("**/*.onnx"))
    if not paths:
        print(f"skipped: no ONNX files below {root}")
        sys.exit(77)
    failed = 0
    for path in paths:
        try:
            check_file(path, resave, dump_shapes)
        except Exception as e:  # one file must not hide the others
            failed += 1
            print(f"{path.name}: FAILED: {e}")
    print(f"{len(paths) - failed} of {len(paths)} files")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
