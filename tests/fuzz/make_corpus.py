"""Writes tests/fuzz/corpus/onnx: small models of every kind of field that the reader knows, and hostile ones.

usage: .venv/bin/python tests/fuzz/make_corpus.py
"""
import os

import numpy as np
from onnx import AttributeProto, FunctionProto, SparseTensorProto, TensorProto, helper, numpy_helper

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "onnx")
F = TensorProto.FLOAT


def write(name, content):
    with open(os.path.join(FOLDER, name), "wb") as file:
        file.write(content if isinstance(content, bytes) else content.SerializeToString(deterministic=True))


def value(name, shape, dtype=F):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs, outputs, initializers=(), opset=17, ir=8, **more):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers),
                              sparse_initializer=more.pop("sparse", []))
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(d, 1) for d in more.pop("domains", [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, producer_name="p", **more)


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def ordinary():
    w = tensor("w", np.arange(8, dtype=np.float32).reshape(2, 4, 1, 1))
    conv = model([helper.make_node("Conv", ["x", "w"], ["c"], "n", kernel_shape=[1, 1], pads=[0, 0, 0, 0]),
                  helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
                  helper.make_node("Reshape", ["p", "s"], ["y"])],
                 [value("x", ["N", 4, 6, 6])], [value("y", None)], [w, tensor("s", np.array([0, -1]))])
    conv.metadata_props.add(key="names", value="a,b")
    write("conv", conv)
    branch = [helper.make_graph([helper.make_node(op, ["x"], [out])], out, [], [value(out, [2])])
              for op, out in (("Exp", "p"), ("Neg", "q"))]
    write("if", model([helper.make_node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])],
                      [value("c", [], TensorProto.BOOL), value("x", [2])], [value("y", [2])]))
    body = helper.make_graph([helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["a", "x"], ["b"])],
                             "body", [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("a", [2])],
                             [value("d", [], TensorProto.BOOL), value("b", [2])])
    write("loop", model([helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)], [value("x", [2])],
                        [value("y", [2])], [tensor("n", np.array(3))]))
    function = helper.make_function("l", "F", ["a"], ["b"], [helper.make_node("Elu", ["a"], ["b"])],
                                    [helper.make_opsetid("", 17)], ["alpha"])
    reference = AttributeProto(name="alpha", ref_attr_name="alpha", type=AttributeProto.FLOAT)
    function.node[0].attribute.append(reference)
    assert isinstance(function, FunctionProto)
    write("function", model([helper.make_node("F", ["x"], ["y"], domain="l", alpha=0.5)], [value("x", [2])],
                            [value("y", [2])], functions=[function], domains=["l"]))
    write("old", model([helper.make_node("Upsample", ["x", "s"], ["y"])],
                       [value("x", [1, 1, 2, 2]), value("s", [4])], [value("y", None)],
                       [tensor("s", np.ones(4, np.float32))], opset=9, ir=3))
    write("quantized", model([helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=0),
                              helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=0)],
                             [value("x", [2, 3])], [value("y", [2, 3])],
                             [tensor("s", np.ones(2, np.float32)), tensor("z", np.zeros(2, np.int8))]))
    write("empty", model([], [value("x", [1])], [value("x", [1])]))


def typed():
    fields = [helper.make_tensor("f", F, [2], [1.5, -2]), helper.make_tensor("d", TensorProto.DOUBLE, [1], [1e300]),
              helper.make_tensor("i", TensorProto.INT32, [], [7]), helper.make_tensor("l", TensorProto.INT64, [2], [1, -1]),
              helper.make_tensor("u", TensorProto.UINT64, [1], [2**63]), helper.make_tensor("b", TensorProto.BOOL, [3], [1, 0, 1]),
              helper.make_tensor("h", TensorProto.FLOAT16, [2], [0.5, 1]), helper.make_tensor("s", TensorProto.STRING, [2], ["a", ""]),
              helper.make_tensor("q", TensorProto.INT4, [3], [1, -2, 3]), helper.make_tensor("z", F, [1, 0, 8], []),
              helper.make_tensor("c", TensorProto.COMPLEX64, [1], [1 + 2j])]
    write("typed", model([], [], [value("f", [2])], fields, opset=21, ir=10))
    sparse = SparseTensorProto(values=tensor("w", np.array([1, 2], np.float32)),
                               indices=tensor("", np.array([0, 3])), dims=[2, 2])
    write("sparse", model([helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", [1, 2])], [value("y", [1, 2])],
                          sparse=[sparse]))
    sparse.indices.CopyFrom(tensor("", np.array([[0, 0], [1, 1]])))
    write("sparse_by_axis", model([helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", [1, 2])],
                                  [value("y", [1, 2])], sparse=[sparse]))
    kinds = helper.make_node("K", [], ["y"], domain="l", f=1.0, i=2, s="t", t=fields[0], fs=[1.0, 2.0], il=[1, 2],
                             ss=["a", "b"], ts=fields[:2])
    write("attributes", model([kinds], [], [value("y", None)], domains=["l"]))
    sequence = helper.make_tensor_sequence_value_info("q", F, [2])
    write("sequence", model([helper.make_node("SequenceAt", ["q", "i"], ["y"])], [sequence], [value("y", [2])],
                            [tensor("i", np.array(0))]))


def field(number, content):
    size, varint = len(content), b""
    while size > 127:
        varint, size = varint + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + varint + bytes([size]) + content


def deep(levels):
    """A graph in an attribute of a node of a graph and so on: more than the classes of onnx can build."""
    graph = b""
    for _ in range(levels):
        graph = field(1, field(2, b"y") + field(4, b"X") + field(7, b"l") + field(5, field(1, b"g") + field(6, graph) + b"\xa0\x01\x05"))
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11") + field(8, field(1, b"l") + b"\x10\x01")


def hostile():
    def one(dims, **more):
        bad = TensorProto(name="w", data_type=F, dims=dims)
        for key, text in more.get("external", {}).items():
            bad.external_data.add(key=key, value=text)
            bad.data_location = TensorProto.EXTERNAL
        bad.raw_data = more.get("raw", b"")
        return model([helper.make_node("Identity", ["w"], ["y"])], [], [value("y", None)], [bad])

    write("huge_dims", one([2**40, 2**40]))
    write("overflowing_dims", one([2**32, 2**32], raw=b"\0" * 4))
    write("negative_dims", one([-1, 4], raw=b"\0" * 16))
    write("short_data", one([1000000]))
    write("external_up", one([1], external={"location": "../secret"}))
    write("external_offset", one([1], external={"location": "a", "offset": "-4", "length": "18446744073709551615"}))
    cycle = [helper.make_node("Neg", ["b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    write("cycle", model(cycle, [], [value("a", [1])]))
    for name, attributes in (("stride_0", {"strides": [0, 1]}), ("group_0", {"group": 0}), ("dilation_0", {"dilations": [0, 1]}),
                             ("pads_negative", {"pads": [-1, 0, 0, 0]})):
        write(name, model([helper.make_node("Conv", ["x", "w"], ["y"], "n", **attributes)], [value("x", [1, 1, 4, 4])],
                          [value("y", None)], [tensor("w", np.ones((1, 1, 1, 1), np.float32))]))
    write("deep", deep(300))
    huge = tensor("s", np.array([2**40, 2**20]))
    write("huge_fill", model([helper.make_node("ConstantOfShape", ["s"], ["y"])], [], [value("y", None)], [huge]))
    write("zip", b"PK\x03\x04" + bytes(20))
    write("pickle", b"\x80\x02}q\x00.")
    write("nothing", b"")


if __name__ == "__main__":
    os.makedirs(FOLDER, exist_ok=True)
    ordinary()
    typed()
    hostile()
