#!/usr/bin/env python3
"""The time of a whole chain on ResNet-50, by pared, by NNCF and by ONNX Runtime, interleaved.

usage: chain.py [--pared FILE] [--passes JSON] [--rounds N] MODEL DATASET

Prune half of the weights by magnitude, calibrate on 100 samples, quantize to INT8, evaluate against the float model on the
same samples. NNCF and ONNX Runtime get the pruned model, which NumPy makes (not counted), and evaluate in ONNX Runtime;
its calibration is the percentile one. MODEL is an ONNX file of one input, DATASET a folder with a dataset.json of NumPy
arrays; of its pictures 100 are made by shifts and mirrors. Wall time, 2 threads each.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
from onnx import numpy_helper

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
import quality  # noqa: E402  (its folder is known only now)

SAMPLES = 100
SPARSITY = 0.5
PRUNE = '[{"pass": "magnitude_prune", "sparsity": %g}, {"pass": "quantize_int8"}]' % SPARSITY


def many(samples, name):
    """SAMPLES pictures: each mirrored or shifted by a few pixels, so that no two are equal."""
    made = []
    for i in range(SAMPLES):
        picture = samples[i % len(samples)][name]
        turn = i // len(samples)
        picture = np.roll(picture, (3 * turn, -5 * turn), (2, 3))
        made.append({name: np.ascontiguousarray(picture[..., ::-1] if turn % 2 else picture)})
    return made


def prune(path, out):
    model = onnx.load(path)
    for weight in model.graph.initializer:
        if len(weight.dims) < 2:
            continue
        values = numpy_helper.to_array(weight).copy()
        values[np.abs(values) < np.quantile(np.abs(values), SPARSITY)] = 0
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, out)


def evaluate(model, quantized, samples):
    return quality.measure(quality.outputs(model, samples, None), quality.outputs(quantized, samples, None), None)["sqnr"]


def by_pared(pared, passes, model, data, out):
    subprocess.run([pared, "optimize", model, "--passes", passes, "--calibration", data, "--out", out], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run([pared, "evaluate", out, f"--dataset={data}", f"--reference={model}"], check=True,
                   stdout=subprocess.DEVNULL)


def by_nncf(model, samples, out):
    import nncf
    onnx.save(nncf.quantize(onnx.load(model), nncf.Dataset(samples), subset_size=SAMPLES), out)


def by_onnxruntime(model, samples, out):
    from onnxruntime.quantization import CalibrationMethod
    quality.by_onnxruntime(model, samples, out, calibrate_method=CalibrationMethod.Percentile)


def main():
    parser = argparse.ArgumentParser(description="Time a whole chain by three programs.")
    parser.add_argument("--pared", default="build/release/pared")
    parser.add_argument("--passes", default=PRUNE, help="pared's chain, as in a job")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("model")
    parser.add_argument("dataset")
    args = parser.parse_args()
    inputs = quality.session(args.model).get_inputs()
    cache, name = os.path.split(os.path.dirname(os.path.join(args.dataset, "")))
    samples = many(quality.load_dataset(os.path.dirname(cache), name, inputs)[0], inputs[0].name)
    with tempfile.TemporaryDirectory() as folder:
        data, pruned = os.path.join(folder, "data"), os.path.join(folder, "pruned.onnx")
        quality.save_dataset(samples, data)
        prune(args.model, pruned)
        makers = {"pared": lambda out: by_pared(args.pared, args.passes, args.model, data, out),
                  "nncf": lambda out: by_nncf(pruned, samples, out),
                  "onnxruntime": lambda out: by_onnxruntime(pruned, samples, out)}
        seconds = {maker: [] for maker in makers}
        for _ in range(args.rounds):
            for maker, make in makers.items():
                out = os.path.join(folder, maker + ".onnx")
                start = time.monotonic()
                make(out)
                sqnr = evaluate(args.model, out, samples) if maker != "pared" else None
                seconds[maker].append(time.monotonic() - start)
                sqnr = evaluate(args.model, out, samples) if sqnr is None else sqnr
                print(f"{maker}: {seconds[maker][-1]:.1f} s, {sqnr:.1f} dB against the unpruned float model", flush=True)
    medians = {maker: statistics.median(times) for maker, times in seconds.items()}
    for maker, median in medians.items():
        print(f"{maker}: median {median:.1f} s, pared takes {medians['pared'] / median:.2f} of it")


if __name__ == "__main__":
    main()
