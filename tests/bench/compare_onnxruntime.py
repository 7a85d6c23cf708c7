#!/usr/bin/env python3
"""Compare pared's executor with onnxruntime on models: results, then latency.

usage: compare_onnxruntime.py RUN_MODEL MODEL... [--threads 1] [--rounds 30] [--least N] [--dims N=1 ...]
                               [--profile] [--tune] [--openvino PYTHON]

RUN_MODEL is the program run_model of the build. Inputs are random. Results: the largest difference
of each output, in units of its quantization step where it has one, and how many elements differ.
Latency: rounds of both alternate, so that noise of the machine meets both; the 10 % quantile and the
median are printed, and the ratio of each. CPU time beside it, for a machine that others use too.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort

DTYPES = {"float": np.float32, "uint8": np.uint8, "int8": np.int8, "int64": np.int64, "int32": np.int32,
          "bool": np.bool_}


class Pared:
    def __init__(self, program, model, inputs, options=()):
        self.process = subprocess.Popen([program, model, *options, "--inputs", *inputs], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{program} failed on {model}")

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def lines(self, command):
        self.ask(command)
        result = []
        while (line := self.process.stdout.readline().strip()) != "end":
            result.append(line)
        return result

    def outputs(self):
        with tempfile.TemporaryDirectory() as folder:
            result = []
            for i, line in enumerate(self.lines(f"save {folder}")):
                dtype, shape = line.split(" ", 1)
                data = np.fromfile(os.path.join(folder, f"{i}.bin"), DTYPES[dtype])
                result.append(data.reshape([int(v) for v in shape.strip("[]").split(",") if v.strip()]))
            return result

    def time(self, runs):
        self.ask(f"time {runs}")
        return [float(v) for v in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def session(model, threads, optimized=True):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def steps(model):
    """The quantization step of each graph output that a DequantizeLinear makes."""
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    scales = {n.output[0]: constants.get(n.input[1]) for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [float(scales[o.name]) if scales.get(o.name) is not None and scales[o.name].size == 1 else None
            for o in model.graph.output]


def difference(a, b, step):
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    d = np.abs(a.astype(np.float64) - b.astype(np.float64))
    if step:
        d = np.round(d / step)
        return f"max {d.max():.0f} steps, {np.count_nonzero(d)} of {d.size} differ"
    return f"max {d.max():.3g} (of {np.abs(b).max():.3g}), {np.count_nonzero(d)} of {d.size} differ"


def random_inputs(sess, folder, dims):
    rng = np.random.default_rng(1)
    feeds, paths = {}, []
    for i, value in enumerate(sess.get_inputs()):
        shape = [dims.get(d, dims.get(str(k), 1)) if not isinstance(d, int) else d for k, d in enumerate(value.shape)]
        dtype = DTYPES[value.type[len("tensor("):-1]]
        if np.issubdtype(dtype, np.floating):
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
        else:  # token ids and masks: all inside any vocabulary
            feeds[value.name] = rng.integers(0, 2, shape).astype(dtype)
        paths.append(os.path.join(folder, f"in{i}.npy"))
        np.save(paths[-1], feeds[value.name])
    return feeds, paths


def compare(arguments, path):
    with tempfile.TemporaryDirectory() as folder:
        sess = session(path, arguments.threads)
        dims = {k: int(v) for k, v in (d.split("=") for d in arguments.dims)}
        feeds, inputs = random_inputs(sess, folder, dims)
        options = ["--threads", str(arguments.threads)] + (["--tune"] if arguments.tune else [])
        ours = Pared(arguments.program, path, inputs, options)
        print(f"== {os.path.basename(path)}, {arguments.threads} thread(s)")
        if not arguments.no_check:
            check(arguments, path, ours, sess, feeds, inputs)
        if arguments.rounds > 0:
            race(arguments, path, ours, sess, feeds, inputs)
        if arguments.least:
            least(arguments, path, ours, feeds)
        if arguments.profile:
            profile(ours)
        ours.close()


def check(arguments, path, ours, sess, feeds, inputs):
    units = steps(onnx.load(path))
    theirs, exact = sess.run(None, feeds), session(path, 1, optimized=False).run(None, feeds)
    fast = ours.outputs()
    unfused = Pared(arguments.program, path, inputs, ["--unfused"])
    slow = unfused.outputs()
    unfused.close()
    for i, unit in enumerate(units):
        print(f"  output {i}: fused against onnxruntime {difference(fast[i], theirs[i], unit)}")
        print(f"            unfused against onnxruntime unoptimized {difference(slow[i], exact[i], unit)}")
        print(f"            onnxruntime against itself unoptimized {difference(theirs[i], exact[i], unit)}")


def cpu_clock(pid):
    """CPU time of a process: Linux encodes its clock's id so."""
    return time.clock_gettime((~pid << 3) | 2)


class OpenVino:
    """openvino_server.py in a Python that has OpenVINO."""

    def __init__(self, python, model, threads, inputs):
        server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openvino_server.py")
        self.process = subprocess.Popen([python, server, model, str(threads), *inputs], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{python} cannot run {model} in OpenVINO")

    def time(self, runs):
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        return [float(v) for v in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class OnnxRuntime:
    def __init__(self, sess, feeds):
        self.sess, self.feeds = sess, feeds

    def time(self, runs):
        times = []
        for _ in range(runs):
            begin = time.perf_counter()
            self.sess.run(None, self.feeds)
            times.append((time.perf_counter() - begin) * 1e3)
        return times


def race(arguments, path, ours, sess, feeds, inputs):
    runners = {"pared": ours, "onnxruntime": OnnxRuntime(sess, feeds)}
    if arguments.openvino:
        runners["OpenVINO"] = OpenVino(arguments.openvino, path, arguments.threads, inputs)
    wall, cpu = {name: [] for name in runners}, {name: [] for name in runners}
    for runner in runners.values():
        runner.time(5)
    for _ in range(arguments.rounds):
        for name, runner in runners.items():
            pid = runner.process.pid if hasattr(runner, "process") else os.getpid()
            start = cpu_clock(pid)
            wall[name].extend(runner.time(3))
            cpu[name].append((cpu_clock(pid) - start) / 3 * 1e3)
    for kind, samples in (("wall", wall), ("cpu", cpu)):
        low = {name: np.quantile(v, 0.1) for name, v in samples.items()}
        mid = {name: np.median(v) for name, v in samples.items()}
        texts = [f"{name} {low[name]:.3f} (median {mid[name]:.3f})" for name in runners]
        ratios = [f"{low[name] / low['pared']:.2f}x ({mid[name] / mid['pared']:.2f}x)" for name in list(runners)[1:]]
        print(f"  {kind} ms: {', '.join(texts)}: {', '.join(ratios)}")
    if arguments.openvino:
        runners["OpenVINO"].close()


def least(arguments, path, ours, feeds):
    """Sum over the nodes of the least time of each: what a quiet machine would show, on one that is shared."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        sess = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        mine, other = {}, {}
        for _ in range(arguments.least):
            sess.run(None, feeds)
            for i, line in enumerate(ours.lines("profile 1")):
                mine[i] = min(mine.get(i, np.inf), float(line.split(" ")[0]))
        with open(sess.end_profiling(), encoding="utf-8") as file:
            for event in json.load(file):
                if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                    other[event["name"]] = min(other.get(event["name"], np.inf), event["dur"] / 1e3)
    sums = sum(mine.values()), sum(other.values())
    print(f"  least times of all nodes: pared {sums[0]:.2f} ms, onnxruntime {sums[1]:.2f} ms: {sums[0] / sums[1]:.2f}")


def profile(ours):
    rows = [line.split(" ", 5) for line in ours.lines("profile 30")]
    rows = [(float(r[0]), int(r[1]), float(r[2]), *r[3:]) for r in rows]
    total = sum(r[0] for r in rows)
    by_op = {}
    for r in rows:
        key = f"{r[3]} {r[4]}"
        by_op[key] = by_op.get(key, 0) + r[0]
    print(f"  {total:.3f} ms in {len(rows)} nodes")
    for key, t in sorted(by_op.items(), key=lambda kv: -kv[1]):
        print(f"    {t:8.3f} ms {100 * t / total:5.1f} %  {key}")
    for r in sorted(rows, key=lambda r: -r[0])[:25]:
        gops = 2 * r[1] / r[0] / 1e6 if r[0] else 0
        print(f"    {r[0]:8.4f} ms {gops:7.0f} GOPS  density {r[2]:.2f}  {r[3]} {r[4]} {r[5]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--dims", nargs="*", default=[], metavar="NAME=N",
                        help="dimensions that the model leaves open, by name, or by index as a number")
    parser.add_argument("--least", type=int, default=0, metavar="N",
                        help="N interleaved runs: sum of each node's least time")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--openvino", metavar="PYTHON", help="a Python that has openvino: it takes part in the race")
    arguments = parser.parse_args()
    for path in arguments.models:
        compare(arguments, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
