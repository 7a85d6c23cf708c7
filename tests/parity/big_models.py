#!/usr/bin/env python3
"""Passes that need no data, over models larger than the memory they may take: big_models.py RUN_PASS [--full] [KIND...]

Three made models, a sum of pairs of matrix products each: with the weights in external data, as initializers within the file, and
in the attributes of Constant nodes. Each pass may keep the part of the model in memory that main() says; onnxruntime must load and run
what it writes, as near to what numpy computes as CHAINS says. A result beyond protobuf's 2 GB must have external data by itself.

KIND is external, initializers or constants; without one all are taken. Without --full the models have 256 MB, with it 2.4 GB, of which
onnxruntime itself could read only the first: needs 5 GB of disk and 6 GB of memory.
Exits 77 (skipped) where the packages are missing.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import time

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

ort.set_default_logger_severity(4)
MB = 1 << 20
# Passes, least SQNR in dB against the original.
CHAINS = [
    ([{"pass": "quantize_weights", "rounding": "nearest"}], 25),
    ([{"pass": "magnitude_prune", "sparsity": 0.1}], 10),
    ([{"pass": "magnitude_prune", "sparsity": 0.1, "scope": "model"}], 10),
    ([{"pass": "channel_prune", "sparsity": 0.1}], 8),
    ([{"pass": "cast_fp16"}], 50),
    ([{"pass": "cast_fp16", "compute": "float32"}], 50),
    ([{"pass": "cast_fp16", "type": "bfloat16"}], 30),
]


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, length):
    """The head of a protobuf field that holds `length` bytes."""
    return varint(number << 3 | 2) + varint(length)


class Made:
    """y = sum of Tanh(x a) b over pairs of weights, a of [narrow, wide]: errors do not pile up from layer to layer."""

    def __init__(self, narrow, wide, count):
        self.narrow, self.count = narrow, count
        self.shapes = [(narrow, wide) if i % 2 == 0 else (wide, narrow) for i in range(count)]
        self.weight_bytes = narrow * wide * 4

    def weight(self, i):
        values = np.random.default_rng(i).standard_normal(self.shapes[i], np.float32)
        return values * np.float32(1.5 / self.shapes[i][0] ** 0.5)

    def model(self):
        nodes = []
        for i in range(0, self.count, 2):
            nodes.append(helper.make_node("MatMul", ["x", f"w{i}"], [f"m{i}"], name=f"product{i}"))
            nodes.append(helper.make_node("Tanh", [f"m{i}"], [f"t{i}"]))
            nodes.append(helper.make_node("MatMul", [f"t{i}", f"w{i + 1}"], [f"p{i}"], name=f"product{i + 1}"))
        nodes.append(helper.make_node("Sum", [f"p{i}" for i in range(0, self.count, 2)], ["y"]))
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, self.narrow]) for name in "xy"]
        graph = helper.make_graph(nodes, "big", values[:1], values[1:])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def write_external(self, path):
        model = self.model()
        with open(f"{path}.data", "wb") as data:
            for i, shape in enumerate(self.shapes):
                tensor = model.graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=shape)
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in (("location", f"{path.name}.data"), ("offset", data.tell()), ("length", self.weight_bytes)):
                    tensor.external_data.add(key=key, value=str(value))
                self.weight(i).tofile(data)
        path.write_bytes(model.SerializeToString())

    def wanted(self, x):
        y = np.zeros_like(x)
        for i in range(0, self.count, 2):
            y += np.tanh(x @ self.weight(i)) @ self.weight(i + 1)
        return y

    def tensor_head(self, i):
        tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=self.shapes[i]).SerializeToString()
        return tensor + field(9, self.weight_bytes)  # raw_data

    def write_initializers(self, path):
        tensors = [self.tensor_head(i) for i in range(self.count)]
        self.write_within(path, [field(5, len(tensor) + self.weight_bytes) + tensor for tensor in tensors])

    def write_constants(self, path):
        heads = []
        for i in range(self.count):
            tensor = self.tensor_head(i)
            attribute = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR).SerializeToString()
            attribute += field(5, len(tensor) + self.weight_bytes) + tensor
            node = onnx.NodeProto(op_type="Constant", output=[f"w{i}"]).SerializeToString()
            node += field(5, len(attribute) + self.weight_bytes) + attribute
            heads.append(field(1, len(node) + self.weight_bytes) + node)
        self.write_within(path, heads)

    def write_within(self, path, heads):
        """A graph's fields, each of which ends in a weight. By hand: onnx's own writer holds the model several times over."""
        model = self.model()
        rest = model.graph.SerializeToString()
        model.ClearField("graph")
        with open(path, "wb") as file:
            file.write(model.SerializeToString())
            file.write(field(7, sum(map(len, heads)) + self.count * self.weight_bytes + len(rest)))
            for i, head in enumerate(heads):
                file.write(head)
                self.weight(i).tofile(file)
            file.write(rest)


def run(path, x):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def size_of(path):
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def apply(program, path, out, chain):
    """Megabytes resident at most, as far as they are seen 100 times a second; rusage would count this process too."""
    child = subprocess.Popen([program, str(path), str(out), json.dumps(chain), "none"], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
    peak_kb = 0
    while child.poll() is None:
        status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
        if child.args[0] in pathlib.Path(f"/proc/{child.pid}/cmdline").read_text():
            peak_kb = max([peak_kb] + [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")])
        time.sleep(0.01)
    if child.returncode:
        raise RuntimeError(f"ended with {child.returncode}: {child.stderr.read()[:300]}")
    return peak_kb / 1024


def check(program, path, resident_mb, x, wanted):
    faults = 0
    for chain, least_db in CHAINS:
        out, start = path.parent / "out.onnx", time.monotonic()
        try:
            peak_mb = apply(program, path, out, chain)
            seconds = time.monotonic() - start
            got = run(out, x)
            db = 10 * np.log10((wanted**2).sum() / max(((wanted - got) ** 2).sum(), 1e-30))
            is_split = out.with_name("out.onnx.data").exists()
            fault = ("takes too much memory" if peak_mb > resident_mb else "" if db >= least_db else "is too far off"
                     ) or ("has no external data" if size_of(out) >= 2**31 and not is_split else "")
            print(f"{path.stem} {' '.join(str(v) for v in chain[0].values())}: {peak_mb:.0f} MB resident, {db:.1f} dB, "
                  f"{size_of(path) // MB} to {size_of(out) // MB} MB{' in two files' if is_split else ''}, {seconds:.1f} s"
                  f"{f' FAILED: {fault}' if fault else ''}", flush=True)
        except Exception as e:  # noqa: a fault of onnxruntime is one of the file
            fault = str(e)
            print(f"{path.stem} {json.dumps(chain)}: FAILED: {fault[:300]}", flush=True)
        faults += bool(fault)
        for file in path.parent.glob("out.onnx*"):
            file.unlink()
    return faults


def main():
    full = "--full" in sys.argv
    # 1.2 times the largest weight and 500 MB; or a few weights of 8 MB, what a mask takes of all, and the program itself.
    narrow, wide, resident_mb = (4096, 12288, 1.2 * 192 + 500) if full else (1024, 2048, 80)
    count = 12 if full else 32
    faults = 0
    for kind in [word for word in sys.argv[2:] if word != "--full"] or ["external", "initializers", "constants"]:
        with tempfile.TemporaryDirectory() as folder:
            made, path = Made(narrow, wide, count), pathlib.Path(folder) / f"{kind}.onnx"
            getattr(made, f"write_{kind}")(path)
            x = np.random.default_rng(99).standard_normal((1, narrow), np.float32)
            faults += check(sys.argv[1], path, resident_mb, x, made.wanted(x))
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
