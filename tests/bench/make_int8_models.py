#!/usr/bin/env python3
"""Make INT8 models to measure, dense and pruned, with onnxruntime's own quantizer.

usage: make_int8_models.py FOLDER [--sparsity 0 0.8 0.9] [--models NAME ...] [--per-tensor]

NAME: efficientnet_lite0, yolov8n, all_minilm_l6, ocr_cls, mnist (from the model cache, see scripts/fetch_models),
resnet50 (the topology of ResNet-50 v1.5 with random weights; speed does not depend on them).
Writes FOLDER/NAME_SPARSITY.onnx in QDQ form: uint8 activations, int8 symmetric weights, calibrated
on random data. Pruning is by magnitude, unstructured, of each weight of 64 inputs or more but the
first layer's.
"""
import argparse
import os
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.preprocess import quant_pre_process

CACHE = os.environ.get("PARED_MODELS") or os.path.join(os.path.expanduser("~"), ".cache", "pared-models")
SOURCES = {
    "efficientnet_lite0": ("made/efficientnet_lite0.onnx", [1, 3, 224, 224]),
    "yolov8n": ("yolov8n-nudenet/320n.onnx", [1, 3, 320, 320]),
    "all_minilm_l6": ("made/all_minilm_l6_v2.onnx", [1, 128]),
    "ocr_cls": ("rapidocr/ch_ppocr_mobile_v2.0_cls_infer.onnx", [1, 3, 48, 192]),
    "mnist": ("mnist-conv/mnist-conv.onnx", [1, 1, 28, 28]),
    "resnet50": (None, [1, 3, 224, 224]),
}


def resnet50():
    rng = np.random.default_rng(50)
    nodes, weights = [], []

    def conv(x, inputs, outputs, kernel, stride, relu=True):
        name = f"c{len(weights)}"
        fan_in = inputs * kernel * kernel
        w = rng.standard_normal((outputs, inputs, kernel, kernel)) * np.sqrt(1.6 / fan_in)
        b = rng.standard_normal(outputs) * 0.05
        weights.append(numpy_helper.from_array(w.astype(np.float32), name + "_w"))
        weights.append(numpy_helper.from_array(b.astype(np.float32), name + "_b"))
        pad = kernel // 2
        nodes.append(helper.make_node("Conv", [x, name + "_w", name + "_b"], [name], name, kernel_shape=[kernel] * 2,
                                      strides=[stride] * 2, pads=[pad] * 4))
        if not relu:
            return name
        nodes.append(helper.make_node("Relu", [name], [name + "_r"], name + "_relu"))
        return name + "_r"

    x = conv("x", 3, 64, 7, 2)
    nodes.append(helper.make_node("MaxPool", [x], ["pool"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4))
    x, channels = "pool", 64
    for stage, blocks in enumerate([3, 4, 6, 3]):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            y = conv(x, channels, width, 1, 1)
            y = conv(y, width, width, 3, stride)
            y = conv(y, width, 4 * width, 1, 1, relu=False)
            if block == 0:
                x = conv(x, channels, 4 * width, 1, stride, relu=False)
            nodes.append(helper.make_node("Add", [y, x], [f"add{stage}_{block}"], f"add{stage}_{block}"))
            x, channels = f"out{stage}_{block}", 4 * width
            nodes.append(helper.make_node("Relu", [f"add{stage}_{block}"], [x], f"relu{stage}_{block}"))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["gap"], "gap"))
    nodes.append(helper.make_node("Flatten", ["gap"], ["flat"], "flat"))
    w = (rng.standard_normal((1000, 2048)) / np.sqrt(2048)).astype(np.float32)
    weights += [numpy_helper.from_array(w, "fc_w"), numpy_helper.from_array(np.zeros(1000, np.float32), "fc_b")]
    nodes.append(helper.make_node("Gemm", ["flat", "fc_w", "fc_b"], ["y"], "fc", transB=1))
    graph = helper.make_graph(nodes, "resnet50", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1000])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def load(name):
    path, shape = SOURCES[name]
    model = onnx.load(os.path.join(CACHE, path)) if path else resnet50()
    if model.opset_import[0].version < 13 or model.ir_version < 4:
        model = onnx.version_converter.convert_version(model, 13)
        initialized = {i.name for i in model.graph.initializer}
        inputs = [i for i in model.graph.input if i.name not in initialized]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = 8
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shape):
            dim.dim_value = size
    return model, shape


def prune(model, sparsity):
    first = True
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        for weight in model.graph.initializer:
            if weight.name != node.input[1]:
                continue
            w = numpy_helper.to_array(weight).copy()
            inputs = w[0].size if node.op_type == "Conv" else min(w.shape)
            if not first and inputs >= 64:
                w[np.abs(w) <= np.quantile(np.abs(w), sparsity)] = 0
                weight.CopyFrom(numpy_helper.from_array(w, weight.name))
            first = False


class RandomData(CalibrationDataReader):
    def __init__(self, inputs, shape):
        rng = np.random.default_rng(0)
        self.samples = iter([{i.name: self.draw(rng, i, shape) for i in inputs} for _ in range(3)])

    @staticmethod
    def draw(rng, value, shape):
        if value.type.tensor_type.elem_type == TensorProto.INT64:  # token ids, masks, segments
            return rng.integers(1000, 20000, shape) if value.name == "input_ids" else rng.integers(0, 2, shape)
        return rng.standard_normal(shape).astype(np.float32)

    def get_next(self):
        return next(self.samples, None)


def make(name, sparsity, per_channel, folder):
    model, shape = load(name)
    out = os.path.join(folder, f"{name}_{round(sparsity * 100):02d}.onnx")
    with tempfile.TemporaryDirectory() as scratch:
        source, ready = os.path.join(scratch, "a.onnx"), os.path.join(scratch, "b.onnx")
        onnx.save(model, source)
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        folded = onnx.load(ready)
        if sparsity > 0:
            prune(folded, sparsity)
            onnx.save(folded, ready)
        # Onnxruntime's quantizer fails on per-channel weights of mnist-conv's odd bias shapes.
        quantize_static(ready, out, RandomData(model.graph.input, shape), quant_format=QuantFormat.QDQ,
                        per_channel=per_channel and name != "mnist", activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8)
    print(out, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.0, 0.8, 0.9])
    parser.add_argument("--models", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--per-tensor", action="store_true")
    arguments = parser.parse_args()
    os.makedirs(arguments.folder, exist_ok=True)
    for name in arguments.models:
        for sparsity in arguments.sparsity:
            make(name, sparsity, not arguments.per_tensor, arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
