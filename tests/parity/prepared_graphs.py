#!/usr/bin/env python3
"""The passes that prepare a graph, over every ONNX file of the model cache: prepared_graphs.py RUN_PASS [WORD...]

Runs fold_constants, remove_identities and fuse_patterns, one after the other, and compares onnxruntime's outputs of the
result with those of the file, on the inputs of real_models.py. They must agree within rounding: LIMIT of the range. With
WORDs only files whose path holds one of them. MUST says what the passes must find where they are known to find it.

Exits 77 (skipped) where the models or the packages are missing.
"""
import collections
import json
import pathlib
import subprocess
import tempfile

from real_models import LIMIT, NO_ORT, difference, feeds_of, run_files, session

PASSES = [{"pass": "remove_identities"}, {"pass": "fold_constants"},
          {"pass": "fuse_patterns", "opset_max": 23,
           "op_types": ["LayerNormalization", "Gelu", "HardSwish", "Attention"]}]
# File, operator and how many of it are fused.
MUST = {("en_US-joe-medium.onnx", "LayerNormalization"): 36, ("ch_PP-OCRv4_rec_infer.onnx", "LayerNormalization"): 5,
        ("all_minilm_l6_v2.onnx", "Gelu"): 6, ("paraphrase-MiniLM-L3-v2.onnx", "Gelu"): 3,
        ("all_minilm_l6_v2.onnx", "Attention"): 6, ("paraphrase-MiniLM-L3-v2.onnx", "Attention"): 3,
        ("ch_PP-OCRv4_det_infer.onnx", "HardSwish"): 24}
# From input to output these round in another order, and their files say float16, or codes that a last bit decides.
OTHER_LIMIT = {"isnet_fp16.onnx": 1e-2, "isnet_uint8.onnx": 5e-2}


def check(program, path, data):
    """Empty where the file passes."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.onnx"
        done = subprocess.run([program, str(path), str(out), json.dumps(PASSES)], capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip()
        reports = [json.loads(line) for line in done.stdout.splitlines()]
        fused = collections.Counter(entry["op_type"] for entry in reports[2]["changed"])
        print(f"  {path.name}: {len(reports[0]['changed'])} identities, {len(reports[1]['changed'])} constants, "
              f"{dict(fused)}, {path.stat().st_size} to {out.stat().st_size} bytes", flush=True)
        for (name, op_type), count in MUST.items():
            if name == path.name and fused[op_type] != count:
                return f"{fused[op_type]} {op_type} in place of {count}"
        if path.name in NO_ORT:
            return ""
        model = session(path)
        feeds = feeds_of(path, model, data)
        wanted = model.run(None, feeds)
        names = [output.name for output in model.get_outputs()]
        del model
        model = session(out)
        if [output.name for output in model.get_outputs()] != names:
            return "other outputs"
        worst = max(difference(a, b) for a, b in zip(model.run(None, feeds), wanted))
        return "" if worst <= OTHER_LIMIT.get(path.name, LIMIT) else f"differs by {worst:.2e} of the range"


if __name__ == "__main__":
    run_files(check)
