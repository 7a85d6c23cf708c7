#!/usr/bin/env python3
"""Every pass over every ONNX file of the model cache: every_pass.py RUN_PASS RUN_MODEL [--all] [WORD...]

What must hold of each pass on each file, with default options and calibrated on the inputs of real_models.py:

R1  The result loads and runs in onnxruntime and in pared. Outputs have the names, types and ranks of the original's, and
    are finite where those are; the passes of SAME compute the same within rounding.
R2  Every node that the pass is about is in its report, changed or skipped with a reason.
R3  A refusal, and the error of a misspelt exclusion, say where and what would be right.
R4  The file has the same bytes with one thread and with two.

Without --all and WORDs only QUICK_FILES, in two minutes; --all takes all, WORDs choose by path or pass.
Exits 77 (skipped) where the models or the packages are missing.
"""
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

try:
    import numpy as np
    import onnx

    import real_models
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# The operators that a pass is about.
ABOUT = {
    "fix_shapes": set(),
    "fold_constants": set(),
    "remove_identities": {"Identity", "Dropout"},
    "fuse_patterns": set(),
    "fold_batch_norm": {"BatchNormalization"},
    "magnitude_prune": PRODUCTS,
    "second_order_prune": PRODUCTS,
    "channel_prune": PRODUCTS,
    "quantize_int8": PRODUCTS,
    "quantize_dynamic": {"Gemm", "MatMul"},
    "quantize_weights": PRODUCTS,
    "cast_fp16": PRODUCTS | {"Resize", "Exp"},
    "strip_notes": set(),
}
SAME = {"fix_shapes", "fold_constants", "remove_identities", "fuse_patterns", "fold_batch_norm", "strip_notes"}
QUICK_FILES = ["mnist-conv", "espcn", "magika", "basic-pitch", "silero", "mobile_v2.0_cls"]
# Rounding decides codes or float16 values after each change of order.
SAME_LIMIT = {"isnet_fp16.onnx": 1e-2, "isnet_uint8.onnx": 5e-2}
# What a refusal may be for: there is nothing for the pass to do.
NOTHING_TO_DO = ("no weight", "no node", "no layer", "has none", "nothing to")


class Fault(Exception):
    pass


def labels(graph, op_types):
    """As pared names nodes, those of subgraphs too."""
    for node in graph.node:
        if node.op_type in op_types:
            yield f"{node.op_type} {node.name}" if node.name else f"{node.op_type} producing {node.output[0]}"
        for attribute in node.attribute:
            for inner in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                yield from labels(inner, op_types)


class File:
    def __init__(self, path, programs, folder, data):
        self.path, self.folder = path, pathlib.Path(folder)
        self.run_pass, self.run_model = programs
        self.graph = onnx.load(str(path), load_external_data=False).graph
        model = real_models.session(path)
        self.feeds = real_models.feeds_of(path, model, data)
        self.names = [output.name for output in model.get_outputs()]
        self.wanted = [np.asarray(value) for value in model.run(None, self.feeds)]
        samples = self.folder / "samples"
        samples.mkdir()
        for i, values in enumerate(self.feeds.values()):
            np.save(samples / f"{i}.npy", values[None])  # all of them are one sample
        listing = {name: f"{i}.npy" for i, name in enumerate(self.feeds)}
        (samples / "dataset.json").write_text(json.dumps({"inputs": listing}))

    def apply(self, entry, out, threads):
        done = subprocess.run([self.run_pass, str(self.path), str(out), json.dumps([entry]), str(self.folder / "samples"), "1",
                               str(threads)], capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise Fault(f"ended with {done.returncode}: {done.stderr[-200:]}")
        return (json.loads(done.stdout), "") if done.returncode == 0 else (None, done.stderr.strip())

    def check(self, name):
        """What happened, in a word. Throws Fault."""
        out = [self.folder / f"{threads}.onnx" for threads in (1, 2)]
        for file in self.folder.glob("*.onnx*"):
            file.unlink()
        self.check_misspelt(name)
        entry = {"pass": name}
        if name == "fix_shapes":  # those that the outputs are compared with
            entry["shapes"] = {feed: list(value.shape) for feed, value in self.feeds.items() if value.ndim}
        report, refusal = self.apply(entry, out[0], 1)
        if refusal:
            if not any(text in refusal for text in NOTHING_TO_DO):
                raise Fault(f"R3: refused: {refusal[:200]}")
            return "nothing to do"
        self.check_report(name, report)
        self.check_outputs(name, out[0])
        self.apply(entry, out[1], 2)
        if out[0].read_bytes() != out[1].read_bytes():
            raise Fault("R4: two threads give other bytes than one")
        return f"{len(report['changed'])} changed, {len(report['skipped'])} skipped"

    def check_misspelt(self, name):
        node = next((node.name for node in self.graph.node if len(node.name) > 2), None)
        if node is None:
            return
        report, refusal = self.apply({"pass": name, "exclude": [node + "_misspelt"]}, self.folder / "none.onnx", 1)
        if report is not None or node not in refusal or "exclude" not in refusal:
            raise Fault(f"R3: \"{node}_misspelt\" is excluded: {refusal[:200]}")

    def check_report(self, name, report):
        told = {entry["node"] for entry in report["changed"]} | {entry["node"] for entry in report["skipped"]}
        # A node without a name goes by its output, which becomes its name where that output goes.
        silent = [label for label in labels(self.graph, ABOUT[name])
                  if label not in told and label.replace(" producing ", " ") not in told]
        if silent:
            raise Fault(f"R2: not a word about {len(silent)} nodes, {silent[0]}")
        for entry in report["skipped"]:
            if not entry["reason"]:
                raise Fault(f"R2: no reason for {entry['node']}")

    def check_outputs(self, name, out):
        model = real_models.session(out)
        if [output.name for output in model.get_outputs()] != self.names:
            raise Fault("R1: other outputs")
        theirs = [np.asarray(value) for value in model.run(None, {i.name: self.feeds[i.name] for i in model.get_inputs()})]
        del model
        ours = real_models.run_pared(self.run_model, out, self.feeds, [], str(self.folder))
        for runtime, got in (("onnxruntime", theirs), ("pared", ours)):
            for output, want, have in zip(self.names, self.wanted, got):
                self.compare(name, f"R1: {output} in {runtime}", want, have)

    def compare(self, name, place, want, have):
        if want.dtype != have.dtype or want.ndim != have.ndim:
            raise Fault(f"{place} is {have.dtype}{list(have.shape)} in place of {want.dtype}{list(want.shape)}")
        if want.dtype.kind == "f" and np.isfinite(want).all() and not np.isfinite(have).all():
            raise Fault(f"{place} is not finite")
        if name in SAME:
            worst = real_models.difference(have, want)
            if worst > SAME_LIMIT.get(self.path.name, real_models.LIMIT):
                raise Fault(f"{place} differs by {worst:.2e} of the range")


def main():
    words = [word for word in sys.argv[3:] if word != "--all"]
    root = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))
    passes = [name for name in ABOUT if name in words] or list(ABOUT)
    words = [word for word in words if word not in ABOUT]
    if not words and "--all" not in sys.argv and len(passes) == len(ABOUT):
        words = QUICK_FILES
    files = [p for p in sorted(root.glob("*/*.onnx")) if p.parent.name != "archives" and p.name not in real_models.NO_ORT]
    files = [p for p in files if not words or any(word in str(p) for word in words)]
    if not files:
        print(f"skipped: no ONNX files in {root}")
        sys.exit(77)
    count = collections.Counter()
    for path in files:
        with tempfile.TemporaryDirectory() as folder:
            file = File(path, sys.argv[1:3], folder, real_models.Data(root))
            for name in passes:
                start = time.monotonic()
                try:
                    said = file.check(name)
                except Exception as e:  # noqa: a fault of either runtime counts as one of the pass
                    said = f"FAILED {str(e)[:400]}"
                count["failed" if said.startswith("FAILED") else "ok"] += 1
                print(f"{path.name} {name}: {said} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{count['ok']} of {sum(count.values())} hold")
    sys.exit(count["failed"] > 0)


if __name__ == "__main__":
    main()
