"""Writes tests/model/typed_tensors.inc: TensorProto messages that hold one tensor in different fields.

The onnx package and protobuf write the messages; numpy writes the expected bytes. Run it with a Python that has
onnx and numpy: python make_typed_tensors.py > typed_tensors.inc
"""
import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

CASES = [
    ("float", TensorProto.FLOAT, np.array([1.5, -2, np.inf], np.float32)),
    ("double", TensorProto.DOUBLE, np.array([1e300, -0.0], np.float64)),
    ("float16", TensorProto.FLOAT16, np.array([1.5, -65504, 0.0001], np.float16)),
    ("bfloat16", TensorProto.BFLOAT16, np.array([1.5, -3e38], ml_dtypes.bfloat16)),
    ("int8", TensorProto.INT8, np.array([-128, -1, 127], np.int8)),
    ("uint8", TensorProto.UINT8, np.array([0, 128, 255], np.uint8)),
    ("int16", TensorProto.INT16, np.array([-32768, 32767], np.int16)),
    ("uint16", TensorProto.UINT16, np.array([0, 65535], np.uint16)),
    ("int32", TensorProto.INT32, np.array([-2**31, 2**31 - 1], np.int32)),
    ("uint32", TensorProto.UINT32, np.array([0, 2**32 - 1], np.uint32)),
    ("int64", TensorProto.INT64, np.array([-2**63, 2**63 - 1], np.int64)),
    ("uint64", TensorProto.UINT64, np.array([0, 2**64 - 1], np.uint64)),
    ("bool", TensorProto.BOOL, np.array([True, False, True])),
    ("complex64", TensorProto.COMPLEX64, np.array([1 + 2j, -3.5j], np.complex64)),
    ("int4", TensorProto.INT4, np.array([-8, 7, -1], ml_dtypes.int4)),
    ("uint4", TensorProto.UINT4, np.array([15, 0, 9, 4], ml_dtypes.uint4)),
]


def packed(array, data_type):
    if data_type not in (TensorProto.INT4, TensorProto.UINT4):
        return array.tobytes()
    nibbles = [int(x) & 15 for x in array] + [0]
    return bytes(nibbles[i] | nibbles[i + 1] << 4 for i in range(0, len(array), 2))


def literal(data):
    return '"' + "".join(f"\\{b:03o}" for b in data) + '"'


for name, data_type, array in CASES:
    values = array.tolist()
    if data_type == TensorProto.BFLOAT16:
        values = [float(x) for x in array]
    if data_type in (TensorProto.INT4, TensorProto.UINT4):
        values = [int(x) for x in array]
    proto = helper.make_tensor("t", data_type, array.shape, values)
    assert not proto.HasField("raw_data")
    wire, raw = proto.SerializeToString(), packed(array, data_type)
    print(f'{{"{name}", {len(wire)}, {literal(wire)}, {len(raw)}, {literal(raw)}}},')
