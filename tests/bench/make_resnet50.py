#!/usr/bin/env python3
"""Write a ResNet-50 with random weights: the topology of the benchmark tables, without its licence.

usage: make_resnet50.py OUTPUT.onnx
"""
import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]  # width, blocks, stride of the first


class Builder:
    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.nodes, self.initializers = [], []

    def constant(self, name, values):
        self.initializers.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def add(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x, name, channels, outputs, size, stride, relu):
        scale = np.sqrt(2 / (channels * size * size))
        w = self.constant(name + ".w", self.rng.standard_normal((outputs, channels, size, size)) * scale)
        pad = size // 2
        y = self.add("Conv", [x, w], name, kernel_shape=[size, size], strides=[stride, stride], pads=[pad] * 4)
        statistics = [np.ones(outputs), np.zeros(outputs), np.zeros(outputs), np.ones(outputs)]
        names = [self.constant(f"{name}.bn{i}", v) for i, v in enumerate(statistics)]
        y = self.add("BatchNormalization", [y, *names], name + ".bn")
        return self.add("Relu", [y], name + ".relu") if relu else y

    def block(self, x, name, channels, width, stride):
        y = self.conv(x, name + ".1", channels, width, 1, 1, True)
        y = self.conv(y, name + ".2", width, width, 3, stride, True)
        y = self.conv(y, name + ".3", width, width * 4, 1, 1, False)
        if stride != 1 or channels != width * 4:
            x = self.conv(x, name + ".skip", channels, width * 4, 1, stride, False)
        return self.add("Relu", [self.add("Add", [y, x], name + ".add")], name)


def build():
    b = Builder()
    x = b.conv("input", "stem", 3, 64, 7, 2, True)
    x = b.add("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for i, (width, blocks, stride) in enumerate(STAGES):
        for j in range(blocks):
            x = b.block(x, f"stage{i}.{j}", channels, width, stride if j == 0 else 1)
            channels = width * 4
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "mean")], "flat")
    w = b.constant("fc.w", b.rng.standard_normal((1000, channels)) / np.sqrt(channels))
    b.add("Gemm", [x, w, b.constant("fc.b", np.zeros(1000))], "logits", transB=1)
    graph = helper.make_graph(
        b.nodes, "resnet50", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])], b.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    onnx.save(build(), parser.parse_args().output)


if __name__ == "__main__":
    main()
