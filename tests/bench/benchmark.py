#!/usr/bin/env python3
"""Measure pared and onnxruntime interleaved in one run, and write the table of docs/benchmarks.md.

usage: benchmark.py BUILD FOLDER [--output docs/benchmarks.md] [--seconds S] [--rounds N] [--threads 1 2] [--only gemm models float]

BUILD holds run_gemm and run_model; FOLDER keeps the models (made when missing). Every figure is the
least of samples that alternate between the two programs: on a machine that others use too, the least
is what repeats. One thread: CPU time of that thread or process. Two threads: wall time.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import compare_onnxruntime as rival
import make_int8_models

# m x k x n: convolutions of ResNet-50 and MobileNet-v2, products of BERT-base with 128 tokens.
LAYERS = {
    "rn50": ["64x64x3136", "256x64x3136", "64x256x3136", "64x576x3136", "512x128x784", "128x512x784",
             "128x1152x784", "1024x256x196", "256x1024x196", "256x2304x196", "2048x512x49", "512x2048x49",
             "512x4608x49"],
    "mbv2": ["96x16x12544", "24x144x3136", "192x32x784", "384x64x196", "96x576x196", "960x160x49", "320x960x49",
             "1280x320x49"],
    "bert": ["768x768x128", "3072x768x128", "768x3072x128"],
}
# Name, rows and columns dropped together, sparsity in %, the speed-up over onnxruntime aimed at.
MASKS = [("dense", 1, 1, 0, 1.0), ("any", 1, 1, 80, 2.1), ("any", 1, 1, 90, 3.5), ("any", 1, 1, 95, 5.6),
         ("2x1", 2, 1, 80, 3.1), ("2x1", 2, 1, 90, 4.9), ("2x1", 2, 1, 95, 7.2),
         ("4x1", 4, 1, 80, 4.0), ("4x1", 4, 1, 90, 6.0)]
MODELS = {"resnet50": (1.0, 1.8, 2.8), "efficientnet_lite0": (1.0, 1.4, None), "yolov8n": (1.0, 1.4, None),
          "all_minilm_l6": (1.0, 1.4, None)}  # aims for dense, 80 and 90 %
FLOAT_AIM = 1.15
SAMPLE_SECONDS = 0.001
BUSY = 1.25  # a spread from which wall times say more about the machine than about the programs


class Gemm:
    """The program run_gemm."""

    def __init__(self, build):
        self.process = subprocess.Popen([os.path.join(build, "run_gemm")], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def options():
    result = ort.SessionOptions()
    result.intra_op_num_threads = result.inter_op_num_threads = 1
    result.log_severity_level = 3
    return result


def bound(nodes, x, constants):
    """A function that runs a one-output graph of x with bound buffers n times: microseconds of CPU time of one."""
    value = helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)
    y = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph(nodes, "g", [value], [y],
                              [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17),
                                                    helper.make_opsetid("com.microsoft", 1)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), options(), providers=["CPUExecutionProvider"])
    result = session.run(None, {"x": x})[0]
    binding = session.io_binding()
    keep = ort.OrtValue.ortvalue_from_numpy(x), ort.OrtValue.ortvalue_from_numpy(result)
    binding.bind_ortvalue_input("x", keep[0])
    binding.bind_ortvalue_output("y", keep[1])

    def run(n, held=keep):
        assert held
        start = time.thread_time()
        for _ in range(n):
            session.run_with_iobinding(binding)
        return (time.thread_time() - start) / n * 1e6
    return run


def rivals(m, k, n):
    """The same product by onnxruntime: as QLinearMatMul, and as a 1x1 QLinearConv of channels last."""
    rng = np.random.default_rng(1)
    w = rng.integers(-127, 128, (m, k)).astype(np.int8)
    x = rng.integers(0, 256, (n, k)).astype(np.uint8)
    common = {"xs": np.float32(1), "xz": np.uint8(0), "ws": np.full(m, 1e-3, np.float32), "wz": np.zeros(m, np.int8),
              "ys": np.float32(1), "yz": np.uint8(0)}
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    product = bound([helper.make_node("QLinearMatMul", names, ["y"])], x, {**common, "w": np.ascontiguousarray(w.T)})
    conv = helper.make_node("QLinearConv", [*names, "b"], ["y"], domain="com.microsoft", channels_last=1,
                            kernel_shape=[1, 1])
    convolution = bound([conv], x.reshape(1, n, 1, k),
                        {**common, "w": w.reshape(m, k, 1, 1), "b": np.zeros(m, np.int32)})
    return [product, convolution]


def race(functions, seconds):
    """Least result of each function, called in turn for about `seconds`, and the spread of each: median / least."""
    counts = [max(1, round(SAMPLE_SECONDS * 1e6 / max(f(2), 1e-3))) for f in functions]
    samples = [[] for _ in functions]
    stop = time.perf_counter() + seconds
    while len(samples[0]) < 5 or (time.perf_counter() < stop and len(samples[0]) < 500):
        for f, count, found in zip(functions, counts, samples):
            found.append(f(count))
    return [min(s) for s in samples], [float(np.median(s) / min(s)) for s in samples]


def geometric_mean(values):
    return float(np.exp(np.mean(np.log(values))))


def measure_gemm(arguments):
    """Speed-up over onnxruntime of each layer and mask, and dense GOPS."""
    ours = Gemm(arguments.build)
    empty = bound([helper.make_node("Identity", ["x"], ["y"])], np.zeros(1, np.uint8), {})
    overhead = race([empty], 0.2)[0][0]  # of a call from Python, taken off onnxruntime's time
    peak = max(float(ours.ask("peak")) for _ in range(5))
    rows, spreads = [], []
    for model, shapes in LAYERS.items():
        for shape in shapes:
            m, k, n = map(int, shape.split("x"))
            others, row = rivals(m, k, n), []
            for _, block_rows, block_columns, percent, _ in MASKS:
                ours.ask(f"load {m} {k} {n} {block_rows} {block_columns} {percent}")
                mine = lambda count: float(ours.ask(f"time {count}"))
                least, spread = race([mine, *others], arguments.seconds)
                row.append((min(least[1:]) - overhead) / least[0])
                spreads += spread
                if percent == 0:
                    gops = 2e-3 * m * k * n / least[0]
            rows.append((f"{model} {shape}", gops, row))
            print(rows[-1], file=sys.stderr, flush=True)
    ours.close()
    return {"rows": rows, "peak": peak, "spread": float(np.median(spreads))}


def gemm_table(result):
    head = [f"{name} {percent} %" if percent else name for name, _, _, percent, _ in MASKS]
    lines = ["| layer (m x k x n) | dense GOPS | % of peak | " + " | ".join(head) + " |",
             "|" + "---|" * (len(head) + 3)]
    for name, gops, row in result["rows"]:
        cells = [f"{gops:.0f}", f"{100 * gops / result['peak']:.0f}"] + [f"{v:.2f}" for v in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    means = [geometric_mean([row[i] for _, _, row in result["rows"]]) for i in range(len(MASKS))]
    lines.append("| **geometric mean** | | | " + " | ".join(f"**{v:.2f}**" for v in means) + " |")
    lines.append("| aim | | | " + " | ".join(f"{aim:.1f}" for *_, aim in MASKS) + " |")
    missed = [f"{name}: {mean:.2f}x of {mask[-1]:.1f}x" for name, mean, mask in zip(head, means, MASKS)
              if mean < mask[-1]]
    return lines, missed


def race_model(build, path, threads, rounds, dims=None):
    """Least milliseconds of a run: pared, onnxruntime; and the spread."""
    with tempfile.TemporaryDirectory() as folder:
        session = rival.session(path, threads)
        feeds, inputs = rival.random_inputs(session, folder, dims or {})
        ours = rival.Pared(os.path.join(build, "run_model"), path, inputs, ["--threads", str(threads)])
        clock = time.process_time if threads == 1 else time.perf_counter
        samples = [], []
        for _ in range(rounds + 2):
            if threads > 1:  # onnxruntime's threads spin for a while after a run, on the cores that ours need
                time.sleep(0.05)
                ours.time(1)
            start = rival.cpu_clock(ours.process.pid)
            wall = ours.time(1)[0]
            samples[0].append((rival.cpu_clock(ours.process.pid) - start) * 1e3 if threads == 1 else wall)
            if threads > 1:
                session.run(None, feeds)  # both are timed with their threads awake
            start = clock()
            session.run(None, feeds)
            samples[1].append((clock() - start) * 1e3)
        ours.close()
    least = [min(s[2:]) for s in samples]  # the first two fill caches and buffers
    return least, max(float(np.median(s[2:]) / min(s[2:])) for s in samples)


def measure_models(arguments):
    rows, missed = [], []
    for name, aims in MODELS.items():
        for sparsity, aim in zip((0, 80, 90), aims):
            path = os.path.join(arguments.folder, f"{name}_{sparsity:02d}.onnx")
            if not os.path.exists(path):
                make_int8_models.make(name, sparsity / 100, True, arguments.folder)
            cells, single = [], None
            for threads in (1, 2):
                if threads not in arguments.threads:
                    cells += [""] * 4
                    continue
                (mine, other), spread = race_model(arguments.build, path, threads, arguments.rounds)
                mark = "" if spread < BUSY else " *"
                cells += [f"{mine:.2f}", f"{other:.2f}", f"{other / mine:.2f}x{mark}", f"{spread:.2f}"]
                if single is None:
                    single = mine
                    if aim and other / mine < aim:
                        missed.append(f"{name} {sparsity} %, one thread: {other / mine:.2f}x of {aim:.1f}x")
                elif name == "resnet50" and sparsity == 0 and spread < BUSY and single / mine < 1.8:
                    missed.append(f"{name}: two threads are {single / mine:.2f}x as fast as one, of 1.8x")
            scaling = f"{single / mine:.2f}x" if len(arguments.threads) == 2 else ""
            rows.append(f"| {name} | {sparsity} % | " + " | ".join(cells) + f" | {scaling} | "
                        + (f"{aim:.1f}x" if aim else "") + " |")
            print(rows[-1], file=sys.stderr, flush=True)
    head = ["| model | pruned | 1 thread: ms | onnxruntime | speed-up | spread | 2 threads: ms | onnxruntime "
            "| speed-up | spread | 2 over 1 | aim, 1 thread |", "|" + "---|" * 12]
    return head + rows, missed


def measure_float(arguments):
    rows, missed = [], []
    for name in MODELS:
        path = os.path.join(arguments.folder, name + "_float.onnx")
        if not os.path.exists(path):
            onnx.save(make_int8_models.load(name)[0], path)
        (mine, other), spread = race_model(arguments.build, path, 1, max(5, arguments.rounds // 3))
        if mine / other > FLOAT_AIM:
            missed.append(f"{name} FP32: {mine / other:.2f}x of onnxruntime's time, of {FLOAT_AIM}x")
        rows.append(f"| {name} | {mine:.2f} | {other:.2f} | {mine / other:.2f} | {spread:.2f} |")
        print(rows[-1], file=sys.stderr, flush=True)
    return ["| model | ms | onnxruntime | time ratio | spread |", "|---|---|---|---|---|", *rows], missed


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        facts = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    facts = {k.strip(): v.strip() for k, v in facts.items()}
    return (f"{facts.get('model name')} (family {facts.get('cpu family')}, model {facts.get('model')}, "
            f"{os.cpu_count()} CPUs)")


def write(arguments, sections):
    """Replaces the sections that were measured; the others stay as they were."""
    old = {}
    if os.path.exists(arguments.output):
        with open(arguments.output, encoding="utf-8") as file:
            for part in file.read().split("\n## ")[1:]:
                title, text = part.split("\n", 1)
                old[title] = text.strip("\n")
    sections = {**old, **sections}
    text = [INTRODUCTION.strip()]
    for title in TITLES.values():
        if title in sections:
            text.append(f"## {title}\n\n{sections[title]}")
    with open(arguments.output, "w", encoding="utf-8") as file:
        file.write("\n\n".join(text) + "\n")


TITLES = {"gemm": "INT8 products of 24 layers, one thread", "models": "Whole INT8 models", "float": "FP32 models, one thread"}
INTRODUCTION = """
# Benchmarks

Written by `scripts/bench`, which repeats it. Everything is measured interleaved with onnxruntime in one run: its INT8
kernels on dense weights (it has no sparse ones), on the very same model file. A figure is the least of the samples; *spread* is median over
least, which shows how busy the machine was. Pruned models have zeros at random or at the smallest weights, so their speed
is that of a real mask of that sparsity, their accuracy is not. ResNet-50 has random weights.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("folder")
    parser.add_argument("--output", default="docs/benchmarks.md")
    parser.add_argument("--seconds", type=float, default=0.15, help="for each layer and mask")
    parser.add_argument("--rounds", type=int, default=30, help="runs of each model")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], choices=[1, 2],
                        help="1 alone where others use the machine: CPU time is steady then, wall time is not")
    parser.add_argument("--only", nargs="+", default=list(TITLES), choices=list(TITLES))
    arguments = parser.parse_args()
    os.makedirs(arguments.folder, exist_ok=True)
    machine = (f"{cpu_name()}, {os.uname().sysname} {os.uname().release}; onnxruntime {ort.__version__}, "
               f"numpy {np.__version__}; {time.strftime('%Y-%m-%d')}, "
               f"load average {os.getloadavg()[1]:.0f}.")
    sections = {}
    for kind in arguments.only:
        if kind == "gemm":
            result = measure_gemm(arguments)
            lines, missed = gemm_table(result)
            note = (f"Speed-up over the faster of onnxruntime's QLinearMatMul and channels-last 1x1 QLinearConv, less the cost of an "
                    f"empty call. Peak of vpdpbusd measured in the same run: {result['peak']:.0f} GOPS. Masks are random. "
                    f"Median spread {result['spread']:.2f}.")
        else:
            lines, missed = {"models": measure_models, "float": measure_float}[kind](arguments)
            note = {"models": "QDQ, uint8 activations, int8 weights scaled by channel. One thread: CPU time; two: wall time. "
                    "Marked *: other work had the machine meanwhile, so wall times are no figures to rely on.",
                    "float": f"CPU time; the aim is a ratio of at most {FLOAT_AIM}."}[kind]
        short = "Short of the aim: " + ("; ".join(missed) if missed else "nothing") + "."
        sections[TITLES[kind]] = "\n".join([machine + " " + note, "", *lines, "", short])
        write(arguments, sections)
    return 0


if __name__ == "__main__":
    sys.exit(main())
