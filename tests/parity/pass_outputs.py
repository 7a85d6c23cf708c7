#!/usr/bin/env python3
"""What the tests of the passes write, in onnxruntime: pass_outputs.py PASSES_TEST [GTEST_FILTER]

Runs the tests with PARED_KEEP_MODELS (tests/passes/run_pass.h), loads every model that a pass made and compares
onnxruntime's outputs with those of pared's evaluator. Exits 77 (skipped) where the packages are missing.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnxruntime as ort

    from real_models import exact_options, has_exact_products
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

ort.set_default_logger_severity(4)

# A value that falls on the border of two codes may round either way: one step of 255. Half-precision results are
# rounded after each node by pared, after runs of nodes by onnxruntime.
LIMIT = 2e-2


def difference(ours, theirs):
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return f"{theirs.dtype}{list(theirs.shape)} in place of {ours.dtype}{list(ours.shape)}"
    if ours.size == 0 or ours.dtype == bool or np.issubdtype(ours.dtype, np.integer):
        return None if (ours == theirs).all() else "other integers"
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
        return "not finite in one of both"
    finite = np.isfinite(ours)
    if not finite.any():
        return None
    span = max(np.abs(ours[finite]).max(), 1e-6)
    worst = np.abs(ours - theirs)[finite].max() / span
    return None if worst <= LIMIT else f"differs by {worst:.3g} of the largest value"


def fault_in(folder, options):
    try:
        session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        feeds = {given.name: np.load(folder / f"input{i}.npy") for i, given in enumerate(session.get_inputs())}
        outputs = session.run(None, feeds)
    except Exception as e:  # noqa: onnxruntime's own exceptions share no better base
        return str(e)[:300]
    for i, theirs in enumerate(outputs):
        fault = difference(np.load(folder / f"output{i}.npy"), np.asarray(theirs))
        if fault:
            return f"output {session.get_outputs()[i].name} {fault}"
    return None


def check(folder):
    # Its optimizations take any DequantizeLinear and QuantizeLinear of equal scales for inverses, whatever their axes.
    unoptimized = ort.SessionOptions()
    unoptimized.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for options in [*exact_options(), unoptimized]:
        fault = fault_in(folder, options)
        if fault is None:
            return None
    # The last options are exact but for the operators that are integer products themselves.
    is_integer = any(op in (folder / "model.onnx").read_bytes() for op in (b"MatMulInteger", b"ConvInteger", b"QLinear", b"QGemm"))
    if not has_exact_products() and is_integer and "differs by" in fault:
        print(f"{(folder / 'test').read_text()} #{folder.name}: not compared, onnxruntime saturates on this machine")
        return None
    return fault


def main():
    with tempfile.TemporaryDirectory() as kept:
        run = subprocess.run([sys.argv[1], "--gtest_brief=1", f"--gtest_filter={sys.argv[2] if len(sys.argv) > 2 else '*'}"],
                             env={**os.environ, "PARED_KEEP_MODELS": kept}, stdout=subprocess.DEVNULL)
        folders = sorted(pathlib.Path(kept).iterdir(), key=lambda path: int(path.name))
        faults = 0
        for folder in folders:
            try:
                fault = check(folder)
            except Exception as e:  # noqa: onnxruntime's own exceptions share no better base
                fault = str(e)[:300]
            if fault:
                print(f"{(folder / 'test').read_text()} #{folder.name}: {fault}")
                faults += 1
        print(f"{len(folders)} models, {faults} that onnxruntime does not run as pared does")
        sys.exit(1 if faults or not folders or run.returncode else 0)


if __name__ == "__main__":
    main()
