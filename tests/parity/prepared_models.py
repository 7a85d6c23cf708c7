#!/usr/bin/env python3
"""What passes write of the real models, loaded and run in onnxruntime: prepared_models.py RUN_PASS [WORD...]

RUN_PASS is the program run_pass of the build; with WORDs only files whose path holds one of them. Passes that must not change
what the model computes are compared with the original by the largest difference as a part of the output's range; of the
others every output must have the original's type and rank, and be finite. A pass that refuses a model says why, which is
printed and fails.

Exits 77 (skipped) where the models or the packages are missing.
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

    import real_models
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

# chain, largest difference; None: another function
CHAINS = [
    ([{"pass": "channel_prune", "sparsity": 0.3, "reconstruct": "bias"}], None),
    ([{"pass": "magnitude_prune", "sparsity": 0.5, "pattern": "2x1", "reconstruct": "bias"}], None),
]


def run(path, inputs):
    s = real_models.session(path)
    return s.run(None, {i.name: inputs[i.name] for i in s.get_inputs()})


def compare(want, got, limit):
    """The largest difference, or what is wrong."""
    worst = 0.0
    for w, g in zip(want, got):
        w, g = np.asarray(w), np.asarray(g)
        if w.dtype != g.dtype or w.ndim != g.ndim:
            return f"{w.dtype} {w.shape} became {g.dtype} {g.shape}"
        if w.dtype.kind != "f":
            if limit is not None and not np.array_equal(w, g):
                return "whole numbers differ"
            continue
        if not np.isfinite(g[np.isfinite(w)] if w.shape == g.shape else g).all():
            return "not finite"
        if limit is not None:
            if w.shape != g.shape:
                return f"{w.shape} became {g.shape}"
            worst = max(worst, float(np.abs(w - g).max(initial=0) / (np.ptp(w) or 1)) if w.size else 0.0)
    return worst if limit is None or worst <= limit else f"differs by {worst:.2e}"


def main():
    root = pathlib.Path(os.environ.get("PARED_MODELS") or pathlib.Path.home() / ".cache/pared-models")
    files = [f for f in sorted(root.rglob("*.onnx")) if not sys.argv[2:] or any(w in str(f) for w in sys.argv[2:])]
    if not files:
        print(f"skipped: no models in {root}")
        sys.exit(77)
    data, failed = real_models.Data(root), 0
    for path in files:
        if path.name in real_models.NO_ORT:
            continue
        inputs = real_models.feeds_of(path, real_models.session(path), data)
        want = run(path, inputs)
        with tempfile.TemporaryDirectory() as folder:
            out, samples = os.path.join(folder, "out.onnx"), os.path.join(folder, "samples")
            os.mkdir(samples)
            names = {name: f"{n}.npy" for n, name in enumerate(inputs)}
            for name, file in names.items():
                np.save(os.path.join(samples, file), inputs[name][None])
            with open(os.path.join(samples, "dataset.json"), "w", encoding="utf-8") as f:
                json.dump({"inputs": names}, f)
            for chain, limit in CHAINS:
                made = subprocess.run([sys.argv[1], path, out, json.dumps(chain), samples, "1"], capture_output=True, text=True)
                result = made.stderr.strip()[:200] or "failed" if made.returncode else compare(want, run(out, inputs), limit)
                unread = "" if made.returncode else unread_initializers(path, out)
                bad = isinstance(result, str) or unread
                failed += bool(bad)
                print(f"{'BAD ' if bad else ''}{path.name} {'+'.join(p['pass'] for p in chain)}: "
                      f"{result if isinstance(result, str) else f'{result:.2e}'}{unread}", flush=True)
    sys.exit(1 if failed else 0)


def unread_initializers(before, after):
    def unread(path):
        graph = onnx.load(path, load_external_data=False).graph
        read = {i for n in graph.node for i in n.input} | {o.name for o in graph.output}
        if any(a.HasField("g") for n in graph.node for a in n.attribute):
            return set()  # bodies read outer names
        return {i.name for i in graph.initializer} - read
    left = unread(after) - unread(before)
    return f", leaves {sorted(left)}" if left else ""


if __name__ == "__main__":
    main()
