#!/usr/bin/env python3
"""TensorFlow Lite files as pared reads them, against LiteRT itself: tflite_models.py PARED [WORD...]

Models of one operator each, made here, and every .tflite file of the model cache are read by `pared import`, whose ONNX
file is run by onnxruntime. Outputs must have LiteRT's shapes and types; floats must equal LiteRT's to LIMIT of their
range (of whole models WHOLE_LIMIT), integers exactly; codes may differ by one, those of 16 bits by two. With WORDs only models whose name holds one of them.

Exits 77 (skipped) where the packages are missing.
"""
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import flatbuffers
    import numpy as np
    import onnx
    import onnxruntime as ort
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

LIMIT = 2e-5
WHOLE_LIMIT = 1e-4  # of whole models
ROUNDED = {np.dtype(np.int8): 1, np.dtype(np.uint8): 1, np.dtype(np.int16): 2}  # codes; of 16 bits floats are computed with
TYPES = {np.dtype(t): getattr(schema.TensorType, n) for t, n in (
    (np.float32, "FLOAT32"), (np.float16, "FLOAT16"), (np.int32, "INT32"), (np.int64, "INT64"), (np.uint8, "UINT8"),
    (np.int8, "INT8"), (np.int16, "INT16"), (np.bool_, "BOOL"), (np.complex64, "COMPLEX64"))}
rng = np.random.default_rng(3)
ort.set_default_logger_severity(4)


class Quantized:
    """An int8 or uint8 tensor (its shape, or constant codes) with its scales."""

    def __init__(self, value, dtype, scale, zero=0, axis=0):
        self.value, self.dtype = value, np.dtype(dtype)
        self.scale, self.zero, self.axis = np.atleast_1d(np.float32(scale)), np.atleast_1d(np.int64(zero)), axis


class Sparse:
    """A constant of four axes with zeros, of which the last is stored compressed, by blocks of `block` where that is > 1."""

    def __init__(self, value, block=1):
        self.value, self.dtype, self.block = value, value.dtype, block

    def store(self):
        rows = self.value.reshape(-1, self.value.shape[-1] // self.block, self.block)
        kept = np.any(rows != 0, axis=2)
        segments = np.concatenate(([0], np.cumsum(kept.sum(1)))).astype(np.int32)
        sparsity = schema.SparsityParametersT()
        sparsity.traversalOrder = list(range(5 if self.block > 1 else 4))
        sparsity.blockMap = [3] if self.block > 1 else []
        sparsity.dimMetadata = [self.dense(size) for size in self.value.shape[:3]]
        last = schema.DimensionMetadataT()
        last.format = schema.DimensionType.SPARSE_CSR
        last.arraySegmentsType, last.arraySegments = schema.SparseIndexVector.Int32Vector, schema.Int32VectorT()
        last.arrayIndicesType, last.arrayIndices = schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT()
        last.arraySegments.values, last.arrayIndices.values = segments, np.nonzero(kept)[1].astype(np.uint8)
        sparsity.dimMetadata += [last] + ([self.dense(self.block)] if self.block > 1 else [])
        return sparsity, rows[kept]

    @staticmethod
    def dense(size):
        made = schema.DimensionMetadataT()
        made.format, made.denseSize = schema.DimensionType.DENSE, size
        return made


class Variable:
    """A state, of zeros at first."""

    def __init__(self, shape):
        self.shape = shape


class Custom:
    """In place of options: a custom operator's name, and what its kernel reads."""

    def __init__(self, name, *numbers):
        self.name, self.content = name, np.array(numbers, np.int32).tobytes()


def tensor_of(what, name, buffers):
    """what: a shape (float32; -1: open), (shape, dtype), an array (constant), or Quantized."""
    t = schema.TensorT()
    t.name, t.buffer = name, 0
    if isinstance(what, Quantized):
        t.quantization = schema.QuantizationParametersT()
        t.quantization.scale, t.quantization.quantizedDimension = what.scale, what.axis
        t.quantization.zeroPoint = np.broadcast_to(what.zero, what.scale.shape).copy()
        what = what.value if isinstance(what.value, np.ndarray) else (what.value, what.dtype)
    if isinstance(what, Variable):
        t.shape, t.type, t.isVariable = list(what.shape), TYPES[np.dtype(np.float32)], True
        return t
    if isinstance(what, Sparse):
        t.sparsity, stored = what.store()
        buffers.append(schema.BufferT())
        buffers[-1].data = np.frombuffer(stored.tobytes(), np.uint8)
        t.buffer, t.shape, t.type = len(buffers) - 1, list(what.value.shape), TYPES[what.dtype]
        return t
    if isinstance(what, np.ndarray):
        b = schema.BufferT()
        b.data = np.frombuffer(what.tobytes(), np.uint8)
        buffers.append(b)
        t.buffer, t.shape, t.type = len(buffers) - 1, list(what.shape), TYPES[what.dtype]
    else:
        shape, dtype = what if len(what) == 2 and isinstance(what[0], (tuple, list)) else (what, np.float32)
        t.shape, t.type = [abs(length) for length in shape], TYPES[np.dtype(dtype)]
        if min(shape, default=0) < 0:  # found while it runs
            t.shapeSignature = list(shape)
    return t


def graph_of(model, ops, tensors, inputs, outputs):
    graph = schema.SubGraphT()
    graph.tensors = [tensor_of(what, f"t{i}", model.buffers) for i, what in enumerate(tensors)]
    graph.inputs, graph.outputs, graph.operators = inputs, outputs, []
    for name, ins, outs, options in ops:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 2 if name == "BROADCAST_TO" else 1
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = len(model.operatorCodes), ins, outs
        if isinstance(options, Custom):
            code.customCode, op.customOptions = options.name, np.frombuffer(options.content, np.uint8)
        elif options is not None:
            kind = type(options).__name__[:-1]
            op.builtinOptionsType, op.builtinOptions = getattr(schema.BuiltinOptions, kind), options
        model.operatorCodes.append(code)
        graph.operators.append(op)
    return graph


def build(ops, tensors, inputs, outputs, parts=()):
    """ops: [(operator, input places, output places, options or None)]; parts: the same of each graph that operators run."""
    model = schema.ModelT()
    model.version, model.description, model.buffers, model.operatorCodes = 3, "made for a test", [schema.BufferT()], []
    model.subgraphs = [graph_of(model, *graph) for graph in ((ops, tensors, inputs, outputs), *parts)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def options(kind, **fields):
    made = getattr(schema, kind + "OptionsT")()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def f(*shape):
    return rng.uniform(-2, 2, shape).astype(np.float32)


def i32(*values):
    return np.array(values, np.int32)


def one(op, *inputs, out, opts=None, lead=None):
    """A model of one operator. lead: an operator before it on the first input, so that it is held by channels."""
    tensors, places = list(inputs), list(range(len(inputs)))
    callers = [p for p in places if not isinstance(getattr(inputs[p], "value", inputs[p]), np.ndarray)]
    outs = out if isinstance(out, list) else [out]
    ops, first = [], places[0]
    if lead:
        tensors.append(inputs[0])
        ops.append(("MAX_POOL_2D", [0], [len(tensors) - 1], options(
            "Pool2D", padding=0, strideW=1, strideH=1, filterWidth=1, filterHeight=1)))
        first = len(tensors) - 1
    at = len(tensors)
    tensors += outs
    made = list(range(at, at + len(outs)))
    ops.append((op, [first] + places[1:], made, opts))
    return build(ops, tensors, callers, made)


def conv(padding, stride, dilation=1, act=0):
    return options("Conv2D", padding=padding, strideW=stride, strideH=stride, dilationWFactor=dilation,
                   dilationHFactor=dilation, fusedActivationFunction=act)


def pool(padding, stride, size, act=0):
    return options("Pool2D", padding=padding, strideW=stride, strideH=stride, filterWidth=size, filterHeight=size,
                   fusedActivationFunction=act)


def depthwise(padding, stride, multiplier, dilation=1, act=0):
    return options("DepthwiseConv2D", padding=padding, strideW=stride, strideH=stride, depthMultiplier=multiplier,
                   dilationWFactor=dilation, dilationHFactor=dilation, fusedActivationFunction=act)


IMAGE = (2, 7, 9, 6)


def convolutions():
    for padding, stride, dilation, act in ((0, 1, 1, 0), (0, 2, 1, 1), (1, 2, 1, 3), (0, 1, 2, 2), (1, 1, 3, 0)):
        yield (f"CONV_2D {padding} {stride} {dilation} {act}",
               one("CONV_2D", IMAGE, f(5, 3, 2, 6), f(5), out=(2, 1, 1, 5), opts=conv(padding, stride, dilation, act)))
        yield (f"DEPTHWISE {padding} {stride} {dilation} {act}",
               one("DEPTHWISE_CONV_2D", IMAGE, f(1, 3, 2, 12), f(12), out=(2, 1, 1, 12),
                   opts=depthwise(padding, stride, 2, dilation, act)))
    yield "CONV_2D groups", one("CONV_2D", IMAGE, f(6, 3, 3, 2), f(6), out=(2, 1, 1, 6), opts=conv(0, 1))
    for padding, out in ((0, (2, 14, 18, 5)), (0, (2, 13, 17, 5)), (1, (2, 15, 19, 5)), (1, (2, 16, 20, 5))):
        yield (f"TRANSPOSE_CONV {padding} {out[1]}",
               one("TRANSPOSE_CONV", i32(*out), f(5, 3, 3, 6), IMAGE, f(5), out=out,
                   opts=options("TransposeConv", padding=padding, strideW=2, strideH=2)))
    for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        for padding, stride, size in ((0, 1, 3), (0, 2, 2), (1, 2, 3)):
            yield f"{op} {padding} {stride} {size}", one(op, IMAGE, out=(2, 1, 1, 6), opts=pool(padding, stride, size, 1))
    for align, center in ((False, False), (True, False), (False, True)):
        for size in ((14, 18), (11, 5)):
            for op, kind in (("RESIZE_BILINEAR", "ResizeBilinear"), ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor")):
                yield (f"{op} {align} {center} {size}",
                       one(op, IMAGE, i32(*size), out=(2, *size, 6),
                           opts=options(kind, alignCorners=align, halfPixelCenters=center)))


    for padding, stride, dilation, act in ((0, 1, 1, 1), (0, 2, 1, 0), (1, 1, 2, 0)):
        volume = options("Conv3D", padding=padding, strideD=1, strideW=stride, strideH=stride, fusedActivationFunction=act,
                         dilationDFactor=1, dilationWFactor=dilation, dilationHFactor=1)
        yield f"CONV_3D {padding} {stride} {dilation}", one("CONV_3D", (2, 4, 7, 9, 3), f(2, 3, 3, 3, 5), f(5), out=(1,), opts=volume)


def products():
    for shape, keep in (((4, 6), False), ((2, 3, 6), False), ((2, 3, 6), True), ((2, 1, 1, 6), False)):
        out = (*shape[:-1], 5) if keep else (int(np.prod(shape[:-1])), 5)
        for act in (0, 1):
            yield (f"FULLY_CONNECTED {shape} {keep} {act}",
                   one("FULLY_CONNECTED", shape, f(5, 6), f(5), out=out,
                       opts=options("FullyConnected", keepNumDims=keep, fusedActivationFunction=act)))
    yield "FULLY_CONNECTED lead", one("FULLY_CONNECTED", (2, 3, 4, 5), f(7, 60), out=(2, 7), opts=options("FullyConnected"), lead=True)
    for x, y in ((False, False), (True, False), (False, True), (True, True)):
        yield (f"BATCH_MATMUL {x} {y}",
               one("BATCH_MATMUL", (2, 4, 3) if x else (2, 3, 4), (2, 5, 4) if y else (2, 4, 5), out=(2, 3, 5),
                   opts=options("BatchMatMul", adjX=x, adjY=y)))


def elementwise():
    for op in ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "HARD_SWISH", "LOGISTIC", "NEG", "RELU", "RELU6",
               "RELU_N1_TO_1", "ROUND", "SIN", "SQUARE", "TANH", "ZEROS_LIKE", "SIGN", "RELU_0_TO_1"):
        yield op, one(op, (2, 3, 4), out=(2, 3, 4))
        yield op + " lead", one(op, IMAGE, out=IMAGE, lead=True)
    for approximate in (False, True):
        yield f"GELU {approximate}", one("GELU", (2, 5), out=(2, 5), opts=options("Gelu", approximate=approximate))
    yield "LEAKY_RELU", one("LEAKY_RELU", IMAGE, out=IMAGE, opts=options("LeakyRelu", alpha=0.2), lead=True)
    others = (((2, 7, 9, 6), f(6)), ((2, 7, 9, 6), f(1, 1, 1, 6)), ((2, 7, 9, 6), f(9, 6)), ((2, 7, 9, 6), f(9, 1)),
              ((2, 7, 9, 6), np.array(1.5, np.float32)), ((3, 4), (3, 4)), ((2, 3, 4), (3, 1)))
    for op in ("ADD", "SUB", "MUL", "DIV"):
        kind = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}[op]
        for a, b in others:
            lead = len(a) == 4
            yield f"{op} {a} {np.shape(b)}", one(op, a, b, out=a, opts=options(kind, fusedActivationFunction=1), lead=lead)
    for op in ("MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "FLOOR_DIV", "FLOOR_MOD"):
        yield op, one(op, IMAGE, f(6) + 3, out=IMAGE, lead=True)
    for op in ("FLOOR_DIV", "FLOOR_MOD"):
        yield op + " int32", one(op, ((4, 6), np.int32), i32(-3, 2, 5, -7, 1, 4), out=((4, 6), np.int32))
    for op in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"):
        yield op, one(op, ((4, 6), np.int32), i32(-3, 2, 5, -7, 1, 4), out=((4, 6), np.bool_))
    yield "PRELU", one("PRELU", IMAGE, f(1, 1, 6), out=IMAGE, lead=True)
    yield "PRELU plain", one("PRELU", IMAGE, f(1, 1, 6), out=IMAGE)
    yield "SELECT_V2", one("SELECT_V2", ((4, 6), np.bool_), (4, 6), f(6), out=(4, 6))
    yield "ADD_N", one("ADD_N", (4, 6), (4, 6), (4, 6), out=(4, 6))
    yield "CAST", one("CAST", (4, 6), out=((4, 6), np.int32), opts=options("Cast", inDataType=0, outDataType=2))
    yield "DEQUANTIZE half", one("DEQUANTIZE", ((4, 6), np.float16), out=(4, 6))


def reductions():
    for op in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"):
        for axes in ((1, 2), (3,), (1,), (-1, 0), (0, 1, 2, 3)):
            for keep in (False, True):
                out = np.sum(np.zeros(IMAGE), axes, keepdims=keep).shape
                yield f"{op} {axes} {keep}", one(op, IMAGE, i32(*axes), out=out, opts=options("Reducer", keepDims=keep), lead=True)
    for op in ("REDUCE_ANY", "REDUCE_ALL"):
        yield op, one(op, ((4, 6), np.bool_), i32(1), out=((4,), np.bool_), opts=options("Reducer", keepDims=False))
    for beta in (1, 0.5):
        yield f"SOFTMAX {beta}", one("SOFTMAX", IMAGE, out=IMAGE, opts=options("Softmax", beta=beta), lead=True)
    yield "SOFTMAX rows", one("SOFTMAX", (4, 6), out=(4, 6), opts=options("Softmax", beta=1))
    yield "LOG_SOFTMAX", one("LOG_SOFTMAX", (4, 6), out=(4, 6))
    yield "LOCAL_RESPONSE_NORMALIZATION", one(
        "LOCAL_RESPONSE_NORMALIZATION", IMAGE, out=IMAGE,
        opts=options("LocalResponseNormalization", radius=2, bias=1.5, alpha=0.3, beta=0.75))
    yield "L2_NORMALIZATION", one("L2_NORMALIZATION", IMAGE, out=IMAGE, opts=options("L2Norm"), lead=True)
    yield "ARG_MAX", one("ARG_MAX", IMAGE, i32(-1), out=((2, 7, 9), np.int64), opts=options("ArgMax", outputType=4), lead=True)
    yield "ARG_MIN", one("ARG_MIN", IMAGE, i32(1), out=((2, 9, 6), np.int32), opts=options("ArgMin", outputType=2))
    yield "TOPK_V2", one("TOPK_V2", (4, 9), i32(3).reshape(()), out=[(4, 3), ((4, 3), np.int32)])
    for exclusive, reverse in ((False, False), (True, True)):
        yield f"CUMSUM {exclusive}", one("CUMSUM", (4, 6), i32(1).reshape(()), out=(4, 6), opts=options("Cumsum", exclusive=exclusive, reverse=reverse))


def layout():
    yield "RESHAPE", one("RESHAPE", IMAGE, i32(2, -1), out=(2, 378), lead=True)
    yield "RESHAPE pooled", one("RESHAPE", (2, 1, 1, 6), i32(2, 6), out=(2, 6), lead=True)
    yield "RESHAPE option", one("RESHAPE", (2, 6), out=(3, 4), opts=options("Reshape", newShape=[3, 4]))
    yield "SQUEEZE", one("SQUEEZE", (2, 1, 1, 6), out=(2, 6), opts=options("Squeeze", squeezeDims=[1, 2]), lead=True)
    yield "EXPAND_DIMS", one("EXPAND_DIMS", (2, 6), i32(-1).reshape(()), out=(2, 6, 1))
    for order in ((0, 3, 1, 2), (0, 2, 3, 1), (3, 2, 1, 0), (0, 1, 2, 3)):
        out = tuple(IMAGE[a] for a in order)
        yield f"TRANSPOSE {order}", one("TRANSPOSE", IMAGE, i32(*order), out=out)
        yield f"TRANSPOSE lead {order}", one("TRANSPOSE", IMAGE, i32(*order), out=out, lead=True)
    for axis in (1, 2, 3, -1):
        out = list(IMAGE)
        out[axis] *= 2
        yield f"CONCATENATION {axis}", one("CONCATENATION", IMAGE, IMAGE, out=tuple(out), opts=options("Concatenation", axis=axis), lead=True)
    yield "PACK", one("PACK", (2, 3), (2, 3), out=(2, 2, 3), opts=options("Pack", valuesCount=2, axis=1))
    yield "UNPACK", one("UNPACK", (2, 3), out=[(2,), (2,), (2,)], opts=options("Unpack", num=3, axis=1))
    yield "SPLIT", one("SPLIT", i32(3).reshape(()), IMAGE, out=[(2, 7, 9, 3)] * 2, opts=options("Split", numSplits=2))
    yield "SPLIT_V", one("SPLIT_V", IMAGE, i32(1, -1, 2), i32(3).reshape(()), out=[(2, 7, 9, 1), (2, 7, 9, 3), (2, 7, 9, 2)],
                         opts=options("SplitV", numSplits=3), lead=True)
    pads = np.array([[0, 0], [1, 2], [0, 3], [2, 0]], np.int32)
    for lead in (False, True):
        yield f"PAD {lead}", one("PAD", IMAGE, pads, out=(2, 10, 12, 8), lead=lead)
        yield f"PADV2 {lead}", one("PADV2", IMAGE, pads, np.array([1.5], np.float32), out=(2, 10, 12, 8), lead=lead)
        yield f"MIRROR_PAD {lead}", one("MIRROR_PAD", IMAGE, pads, out=(2, 10, 12, 8), opts=options("MirrorPad", mode=0), lead=lead)
        once = np.array([[0, 0], [1, 1], [0, 1], [0, 0]], np.int32)
        yield f"MIRROR_PAD symmetric {lead}", one("MIRROR_PAD", IMAGE, once, out=(2, 9, 10, 6), opts=options("MirrorPad", mode=1), lead=lead)
    yield "DEPTH_TO_SPACE", one("DEPTH_TO_SPACE", (2, 3, 4, 12), out=(2, 6, 8, 3), opts=options("DepthToSpace", blockSize=2))
    yield "SPACE_TO_DEPTH", one("SPACE_TO_DEPTH", (2, 6, 8, 3), out=(2, 3, 4, 12), opts=options("SpaceToDepth", blockSize=2))
    block, borders = i32(2, 3), np.array([[1, 0], [1, 2]], np.int32)
    yield "SPACE_TO_BATCH_ND", one("SPACE_TO_BATCH_ND", IMAGE, block, borders, out=(12, 4, 4, 6))
    yield "BATCH_TO_SPACE_ND", one("BATCH_TO_SPACE_ND", (12, 4, 4, 6), block, borders, out=IMAGE)
    yield "TILE", one("TILE", (2, 3), i32(2, 1), out=(4, 3))
    yield "BROADCAST_TO", one("BROADCAST_TO", (1, 3), i32(4, 3), out=(4, 3))
    yield "REVERSE_V2", one("REVERSE_V2", (2, 3, 4), i32(1), out=(2, 3, 4))
    yield "SHAPE", one("SHAPE", IMAGE, out=((4,), np.int32), opts=options("Shape", outType=2), lead=True)
    yield "FILL", one("FILL", i32(2, 3), ((), np.float32), out=(2, 3))
    yield "RANGE", one("RANGE", ((), np.float32), np.array(9, np.float32), np.array(2, np.float32), out=(3,))


def selections():
    for begin, size in (((0, 1, 2, 0), (-1, 3, 4, -1)), ((1, 0, 0, 2), (1, -1, 9, 3))):
        out = tuple(d - b if s < 0 else s for d, b, s in zip(IMAGE, begin, size))
        yield f"SLICE {begin}", one("SLICE", IMAGE, i32(*begin), i32(*size), out=out, lead=True)
    cases = (((0, 1, 0, 2), (2, 6, 9, 6), (1, 2, 1, 1), {}), ((0, 1, 0, 2), (0, 0, 0, 5), (1, 1, 3, 1), {"beginMask": 5, "endMask": 7}),
             ((1, -1, 0, 0), (2, 0, 9, 6), (1, 1, 1, 1), {"shrinkAxisMask": 3}), ((0, 0, -1), (0, 0, 0), (1, 1, -1), {"ellipsisMask": 2, "beginMask": 1, "endMask": 5}),
             ((0, 0, 3), (2, 0, 7), (1, 1, 2), {"newAxisMask": 2}), ((0, 6, 8, 0), (2, 0, 0, 6), (1, -2, -1, 1), {"endMask": 4}))
    for i, (begin, end, strides, masks) in enumerate(cases):
        for lead in (False, True):
            yield f"STRIDED_SLICE {i} {lead}", one("STRIDED_SLICE", IMAGE, i32(*begin), i32(*end), i32(*strides), out=(1,),
                                                   opts=options("StridedSlice", **masks), lead=lead)
    yield "GATHER", one("GATHER", (4, 6), i32(3, 0, 2), out=(4, 3), opts=options("Gather", axis=1))
    yield "GATHER batched", one("GATHER", (2, 5, 3), np.array([[1, 4], [0, 2]], np.int32), out=(2, 2, 3), opts=options("Gather", axis=1, batchDims=1))
    yield "GATHER_ND", one("GATHER_ND", (2, 5, 3), np.array([[1, 4], [0, 2]], np.int32), out=(2, 3))
    places = np.array([[1, 4], [0, 2], [1, 4]], np.int32)
    yield "SCATTER_ND", one("SCATTER_ND", places, (3, 3), i32(2, 5, 3), out=(2, 5, 3))
    boxes = np.array([[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 3, 1, 4], [1, 1, 0, 0], [0, 3.4, 1, 4.4], [5, 5, 6, 6]], np.float32)
    least = [np.array(number, np.float32) for number in (0.5, -1, 0)]
    for version, more, outs in ((4, [], []), (5, least[2:], [(5,)])):
        places = [f"NON_MAX_SUPPRESSION_V{version}", boxes, (6,), i32(5).reshape(()), *least[:2], *more]
        yield places[0], one(*places, out=[((5,), np.int32), *outs, NUMBER])
    yield "EMBEDDING_LOOKUP", one("EMBEDDING_LOOKUP", i32(3, 0, 2), f(5, 4), out=(3, 4))
    yield "WHERE", one("WHERE", ((4, 6), np.bool_), out=((1, 2), np.int64))
    yield "ONE_HOT", one("ONE_HOT", ((4,), np.int32), i32(5).reshape(()), np.array(2, np.float32), np.array(-1, np.float32),
                         out=(4, 5), opts=options("OneHot", axis=-1))


def quantized():
    """Codes of 8 bits: weights by channel, activations of both signs."""
    for dtype, zero in ((np.int8, -3), (np.uint8, 120)):
        x = Quantized((2, 7, 9, 6), dtype, 0.02, zero)
        y = Quantized((2, 1, 1, 5), dtype, 0.05, zero + 5)
        axis_scales = dtype == np.int8
        scale = np.float32(0.004) * (1 + np.arange(5, dtype=np.float32)) if axis_scales else np.float32([0.01])
        codes = rng.integers(-127, 128, (5, 3, 3, 6)).astype(np.int8) if axis_scales else rng.integers(0, 256, (5, 3, 3, 6)).astype(np.uint8)
        w = Quantized(codes, dtype, scale, 0 if axis_scales else 128)
        b = Quantized(rng.integers(-3000, 3000, 5).astype(np.int32), np.int32, np.float32(0.02) * scale)
        yield f"CONV_2D {np.dtype(dtype)}", one("CONV_2D", x, w, b, out=y, opts=conv(0, 2, 1, 1))
        yield f"ADD {np.dtype(dtype)}", one("ADD", x, x, out=Quantized((2, 7, 9, 6), dtype, 0.04, zero), opts=options("Add"))
        yield f"MAX_POOL_2D {np.dtype(dtype)}", one("MAX_POOL_2D", x, out=Quantized((2, 3, 4, 6), dtype, 0.02, zero), opts=pool(1, 2, 3))
        yield f"DEQUANTIZE {np.dtype(dtype)}", one("DEQUANTIZE", x, out=(2, 7, 9, 6))
        yield f"QUANTIZE {np.dtype(dtype)}", one("QUANTIZE", (2, 7, 9, 6), out=Quantized((2, 7, 9, 6), dtype, 0.03, zero))
    x, y = Quantized((4, 6), np.int8, 0.02, 4), Quantized((4, 5), np.int8, 0.1, -7)
    w = Quantized(rng.integers(-127, 128, (5, 6)).astype(np.int8), np.int8, 0.01)
    b = Quantized(rng.integers(-3000, 3000, 5).astype(np.int32), np.int32, 0.0002)
    yield "FULLY_CONNECTED int8", one("FULLY_CONNECTED", x, w, b, out=y, opts=options("FullyConnected"))
    w = Quantized(rng.integers(-127, 128, (1, 3, 3, 6)).astype(np.int8), np.int8, 0.004 * (1 + np.arange(6)), axis=3)
    b = Quantized(rng.integers(-3000, 3000, 6).astype(np.int32), np.int32, 0.02 * 0.004 * (1 + np.arange(6)))
    yield "DEPTHWISE int8", one("DEPTHWISE_CONV_2D", Quantized((2, 7, 9, 6), np.int8, 0.02, 3), w, b,
                                out=Quantized((2, 7, 9, 6), np.int8, 0.05, 0), opts=depthwise(0, 1, 1))


    on, off = (Quantized(np.array(code, np.int8), np.int8, 0.1) for code in (20, 0))
    yield "ONE_HOT int8", one("ONE_HOT", ((4,), np.int32), i32(5).reshape(()), on, off, out=Quantized((4, 5), np.int8, 0.1),
                              opts=options("OneHot", axis=-1))
    yield "SCATTER_ND int8", one("SCATTER_ND", i32(1, 4).reshape(2, 1), Quantized((2, 3), np.int8, 0.1), i32(5, 3),
                                 out=Quantized((5, 3), np.int8, 0.1))
    wide = lambda shape, scale: Quantized(shape, np.int16, scale)
    scale = 0.004 * (1 + np.arange(5))
    w = Quantized(rng.integers(-127, 128, (5, 3, 3, 6)).astype(np.int8), np.int8, scale)
    b = Quantized(rng.integers(-300000, 300000, 5), np.int64, 2e-4 * scale)
    yield "CONV_2D int16", one("CONV_2D", wide((2, 7, 9, 6), 2e-4), w, b, out=wide((2, 1, 1, 5), 3e-3), opts=conv(0, 2, 1, 1))
    yield "LOGISTIC int16", one("LOGISTIC", wide((2, 6), 2e-4), out=wide((2, 6), 1 / 32768))
    c = Quantized(rng.integers(-9000, 9000, (1, 6)).astype(np.int16), np.int16, 2e-4)
    yield "ADD int16", one("ADD", wide((4, 6), 2e-4), c, out=wide((4, 6), 3e-4), opts=options("Add"))


def stand_ins():
    """Pairs: what pared reads and LiteRT does not, and what LiteRT has for the same."""
    for padding, size in ((0, (13, 17)), (1, (15, 19))):  # MediaPipe's SAME fills no last stride
        weight, bias = f(5, 3, 3, 6), f(5)
        out = (2, *size, 5)
        yield (f"Convolution2DTransposeBias {padding}",
               one("CUSTOM", IMAGE, weight, bias, out=out, opts=Custom("Convolution2DTransposeBias", padding + 1, 2, 2)),
               one("TRANSPOSE_CONV", i32(*out), weight, IMAGE, bias, out=out,
                   opts=options("TransposeConv", padding=padding, strideW=2, strideH=2)))
    x, y = Quantized((2, 7, 9, 6), np.int8, 0.02, 3), Quantized((2, 7, 9, 6), np.int8, 0.05, 0)
    w = Quantized(rng.integers(-127, 128, (1, 3, 3, 6)).astype(np.int8), np.int8, 0.004 * (1 + np.arange(6)), axis=3)
    b = [Quantized(np.arange(-3000, 3000, 1000, dtype=np.int32), np.int32, 0.02 * w.scale, axis=axis) for axis in (3, 0)]
    yield ("bias with the weight's axis",
           *(one("DEPTHWISE_CONV_2D", x, w, bias, out=y, opts=depthwise(0, 1, 1)) for bias in b))


def transforms():
    tensors = [(3, 16), i32(1, 16), ((3, 9), np.complex64), (3, 9)]
    rows = [(2, 1, 16), i32(1, 16), ((2, 1, 9), np.complex64), (2, 1, 9)]
    for op in ("REAL", "IMAG", "COMPLEX_ABS"):
        ops = [("RFFT2D", [0, 1], [2], None), (op, [2], [3], None)]
        yield f"RFFT2D {op}", build(ops, tensors, [0], [3])
        yield f"RFFT2D rows {op}", build(ops, rows, [0], [3])
        frames = [("RFFT2D", [0, 1], [2], None), ("RESHAPE", [2, 4], [5], None), (op, [5], [3], None)]
        yield f"RFFT2D frames {op}", build(frames, rows[:3] + [(2, 9), i32(2, 9), ((2, 9), np.complex64)], [0], [3])


class Graph:
    """A graph that grows by one operator after the other."""

    def __init__(self):
        self.tensors, self.ops, self.inputs = [], [], []

    def add(self, what):
        self.tensors.append(what)
        return len(self.tensors) - 1

    def input(self, what):
        self.inputs.append(self.add(what))
        return self.inputs[-1]

    def whole(self, *outputs):
        return self.ops, self.tensors, self.inputs, list(outputs)

    def op(self, name, inputs, shape, opts=None):
        made = self.add(tuple(shape))
        self.ops.append((name, [i if isinstance(i, int) else self.add(i) for i in inputs], [made], opts))
        return made


def any_layouts(count=150):
    """Operators that read and make values in both layouts, of which some are outputs and read on."""
    for seed in range(count):
        r, g = np.random.default_rng(seed), Graph()
        shape = (2, 4, 5, 6)
        live, outputs = [(g.input(shape), shape), (g.input(shape), shape)], []
        for _ in range(r.integers(4, 14)):
            x, s = live[r.integers(len(live))]
            order = [int(p) for p in r.permutation(len(s))]
            turned = tuple(s[p] for p in order)
            kind = int(r.integers(9)) if len(s) == 4 else int(r.integers(3))
            alike = [y for y, t in live if t == s]
            other = alike[r.integers(len(alike))]
            if kind == 0:
                made, t = g.op("TRANSPOSE", [x, i32(*order)], turned), turned
            elif kind == 1:
                made, t = g.op("ADD", [x, other], s, options("Add")), s
            elif kind == 2:
                t = (s[0], int(np.prod(s[1:]))) if r.random() < 0.5 else (1, 1, int(np.prod(s)), 1)
                made = g.op("RESHAPE", [x, i32(*t)], t)
            elif kind == 3:
                made, t = g.op("MAX_POOL_2D", [x], s, pool(0, 1, 1)), s
            elif kind == 4:
                axes = sorted({int(a) for a in r.integers(0, 4, r.integers(1, 4))})
                keep = bool(r.integers(2))
                t = np.sum(np.zeros(s), tuple(axes), keepdims=keep).shape
                made = g.op("MEAN", [x, i32(*axes)], t, options("Reducer", keepDims=keep))
            elif kind == 5:
                axis = int(r.integers(4))
                t = tuple(d * 2 if a == axis else d for a, d in enumerate(s))
                made = g.op("CONCATENATION", [x, other], t, options("Concatenation", axis=axis))
            elif kind == 6:
                ends = [int(r.integers(1, d + 1)) for d in s]
                made, t = g.op("SLICE", [x, i32(0, 0, 0, 0), i32(*ends)], ends), tuple(ends)
            elif kind == 7:
                factor = f(*(d if r.random() < 0.5 else 1 for d in s[r.integers(4):]))
                made, t = g.op("MUL", [x, factor], s, options("Mul")), s
            else:
                t = (*s[:3], 3)
                made = g.op("CONV_2D", [x, f(3, 2, 3, s[3]) * 0.3, f(3)], t, conv(0, 1))
            live.append((made, t))
            if r.random() < 0.35:
                outputs.append(made)
        yield f"layouts {seed}", build(g.ops, g.tensors, g.inputs, outputs + [live[-1][0]])


def special():
    """What an operator means for values that most inputs do not have."""
    for shape in ((3, 4), (2, 3, 4), (2, 3, 4, 5, 2)):
        order = tuple(reversed(range(len(shape))))
        yield f"TRANSPOSE {shape}", one("TRANSPOSE", shape, i32(*order), out=tuple(reversed(shape)))
    places, four = ((2,), np.int32), (4, 5)
    yield "SLICE computed", one("SLICE", four, places, i32(1, -1), out=(1, 3))
    yield "ONE_HOT below", one("ONE_HOT", i32(-1, 0, 4, 5), ((), np.int32), np.array(2, np.float32), np.array(-1, np.float32),
                               out=(4, 5), opts=options("OneHot", axis=-1))
    yield "ONE_HOT int32", one("ONE_HOT", ((4,), np.int32), i32(5).reshape(()), i32(7).reshape(()), i32(-2).reshape(()),
                               out=((4, 5), np.int32), opts=options("OneHot", axis=-1))
    a, b = np.array([1, -1, 0.6, 7], np.float32), np.array([0.1, 0.1, 0.2, -2.1], np.float32)
    for op in ("FLOOR_DIV", "FLOOR_MOD"):
        yield op + " of tenths", build([(op, [0, 1], [2], None), ("ADD", [2, 3], [4], options("Add"))],
                                       [a, b, (4,), (4,), (4,)], [3], [4])
    tiny = np.array([[1e-5, 0, 0], [3e-8, 0, 0]], np.float32)
    yield "L2_NORMALIZATION tiny", build([("L2_NORMALIZATION", [0], [1], options("L2Norm")), ("ADD", [1, 2], [3], options("Add"))],
                                         [tiny, (2, 3), (2, 3), (2, 3)], [2], [3])
    yield "an output that is stored", build([("RELU", [0], [1], None)], [(2, 3), (2, 3), f(4)], [0], [1, 2])
    row = (*IMAGE[:3], 1)
    yield "variance of channels", build(
        [("MAX_POOL_2D", [0], [1], pool(1, 1, 1)), ("MEAN", [1, 2], [3], options("Reducer", keepDims=True)),
         ("SQUARED_DIFFERENCE", [1, 3], [4], None), ("MEAN", [4, 2], [5], options("Reducer", keepDims=True))],
        [IMAGE, IMAGE, i32(3), row, IMAGE, row], [0], [5])
    yield "outputs alike", build([("RELU", [0], [1], None)], [(2, 3), (2, 3)], [0], [1, 0, 1])
    shape = [("SHAPE", [0], [1], options("Shape", outType=2)),
             ("STRIDED_SLICE", [1, 2, 3, 4], [5], options("StridedSlice", shrinkAxisMask=1)),
             ("PACK", [5, 6, 7, 8], [9], options("Pack", valuesCount=4, axis=0)),
             ("TRANSPOSE_CONV", [9, 10, 0, 11], [12], options("TransposeConv", padding=0, strideW=2, strideH=2))]
    yield "TRANSPOSE_CONV open batch", build(
        shape, [IMAGE, ((4,), np.int32), i32(0), i32(1), i32(1), ((), np.int32), i32(14).reshape(()), i32(18).reshape(()),
                i32(5).reshape(()), ((4,), np.int32), f(5, 3, 3, 6), f(5), (2, 14, 18, 5)], [0], [12])
    for kernel, out in ((3, 14), (3, 13), (1, 14)):  # the shape is an input's
        ops = [("SHAPE", [0], [1], options("Shape", outType=2)), ("ADD", [1, 2], [3], options("Add")),
               ("TRANSPOSE_CONV", [3, 4, 0, 5], [6], options("TransposeConv", padding=0, strideW=2, strideH=2))]
        yield f"TRANSPOSE_CONV open {kernel} {out}", build(
            ops, [IMAGE, ((4,), np.int32), i32(0, out - 7, 9, -1), ((4,), np.int32), f(5, kernel, kernel, 6), f(5), (2, -1, -1, 5)], [0], [6])


def recurrent():
    for time_first, clip in ((False, 0), (True, 0), (False, 10)):  # converters write 10
        units, features, batch = 5, 4, 7 if time_first else 3
        weights = [f(units, features) for _ in range(4)] + [f(units, units) for _ in range(4)] + [f(units) for _ in range(4)]
        tensors = [(3, 7, features)] + weights + [Variable((batch, units)), Variable((batch, units)), (3, 7, units)]
        places = list(range(9)) + [-1] * 3 + list(range(9, 13)) + [-1] * 2 + [13, 14] + [-1] * 4
        yield f"UNIDIRECTIONAL_SEQUENCE_LSTM {time_first} {clip}", build(
            [("UNIDIRECTIONAL_SEQUENCE_LSTM", places, [15], options(
                "UnidirectionalSequenceLSTM", fusedActivationFunction=4, timeMajor=time_first, cellClip=clip))], tensors, [0], [15])


def sparse():
    for dtype, block in ((np.float32, 1), (np.float32, 2), (np.float16, 1), (np.float32, 3)):
        weight = f(5, 3, 2, 6).reshape(5, 3, 2, 6 // block, block)
        weight[rng.uniform(0, 1, weight.shape[:-1]) < 0.7] = 0
        weight = weight.reshape(5, 3, 2, 6).astype(dtype)
        tensors = [IMAGE, Sparse(weight, block), ((5, 3, 2, 6), dtype), f(5), (2, 1, 1, 5)]
        ops = [("DENSIFY", [1], [2], None)]
        if dtype == np.float16:
            tensors.append((5, 3, 2, 6))
            ops.append(("DEQUANTIZE", [2], [5], None))
        ops.append(("CONV_2D", [0, 5 if dtype == np.float16 else 2, 3], [4], conv(0, 1)))
        yield f"DENSIFY {np.dtype(dtype)} {block}", build(ops, tensors, [0], [4])


STEPS, BATCH, FEATURES, UNITS = 4, 1, 3, 5  # Keras has loops where the batch is fixed
NUMBER = ((), np.int32)


def below(states, *counters):
    """The condition: all counters are below STEPS."""
    g = Graph()
    for state in states:
        g.input(state)
    less = [g.op("LESS", [i, i32(STEPS).reshape(())], ((), np.bool_)) for i in counters]
    while len(less) > 1:
        less.append(g.op("LOGICAL_AND", [less.pop(), less.pop()], ((), np.bool_)))
    return g.whole(less[0])


def gates(g, kind, x, h, c, style=""):
    """What the cell makes of x and h: the new h, and c of an LSTM. style: "halves" (of weights), "step reset" (a GRU that is none)."""
    state, count = (BATCH, UNITS), {"lstm": 4, "gru": 3, "rnn": 1}[kind]
    add, mul = (lambda a, b, s=state: g.op("ADD", [a, b], s, options("Add"))), (lambda a, b: g.op("MUL", [a, b], state, options("Mul")))
    sigmoid, tanh = (lambda a: g.op("LOGISTIC", [a], state)), (lambda a: g.op("TANH", [a], state))
    wide, h0 = (BATCH, count * UNITS), h

    def product(value, size, bias):
        weight = 0.5 * f(count * UNITS, size)
        if style == "halves":
            weight = g.op("DEQUANTIZE", [weight.astype(np.float16)], weight.shape)
        return g.op("FULLY_CONNECTED", [value, weight] + [f(count * UNITS)] * bias, wide, options("FullyConnected"))

    def split(value):
        made = [g.add(state) for _ in range(count)]
        g.ops.append(("SPLIT", [g.add(i32(1).reshape(())), value], made, options("Split", numSplits=count)))
        return made

    if style == "step reset":
        x, h = split(product(x, FEATURES, False)), split(product(h, UNITS, False))
        update, new = sigmoid(add(x[0], h[0])), tanh(add(h[2], mul(sigmoid(add(x[1], h[1])), x[2])))
        return add(mul(update, h0), mul(g.op("SUB", [np.array(1, np.float32), update], state, options("Sub")), new)), None
    if kind == "gru":
        x, h_sum = split(product(x, FEATURES, True)), product(h, UNITS, True)
        parts = [g.op("STRIDED_SLICE", [h_sum, i32(0, k * UNITS), i32(0, (k + 1) * UNITS), i32(1, 1)], state,
                      options("StridedSlice", beginMask=1, endMask=1)) for k in range(3)]
        update, reset = sigmoid(add(x[0], parts[0])), sigmoid(add(x[1], parts[1]))
        new = tanh(add(x[2], mul(reset, parts[2])))
        rest = g.op("SUB", [np.array(1, np.float32), update], state, options("Sub"))
        return add(mul(update, h), mul(rest, new)), None
    both = add(product(x, FEATURES, False), product(h, UNITS, False), wide)
    both = add(both, g.add(f(count * UNITS)), wide)
    if kind == "rnn":
        return tanh(both), None
    i, keep, new, out = split(both)
    c = add(mul(sigmoid(keep), c), mul(sigmoid(i), tanh(new)))
    return mul(sigmoid(out), tanh(c)), c


def layer_body(kind, has_all, style=""):
    """What a step of a recurrent layer does as Keras 3 has it, and its states: all outputs are kept, or the last.
    style: as of gates, or "masked"."""
    listed = (STEPS if has_all else 1, BATCH, UNITS)
    states = [NUMBER, NUMBER, listed, (BATCH, UNITS)] + [(BATCH, UNITS)] * (kind == "lstm") + [(STEPS, BATCH, FEATURES)]
    g = Graph()
    counter, step, before, h, *c, sequence = [g.input(state) for state in states]
    one_more = i32(1).reshape(())
    next_counter, next_step = (g.op("ADD", [i, one_more], NUMBER, options("Add")) for i in (counter, step))
    x = g.op("GATHER", [sequence, step], (BATCH, FEATURES), options("Gather"))
    made, cell = gates(g, kind, x, h, c[0] if c else None, style)
    if style == "masked":
        first = g.op("STRIDED_SLICE", [x, i32(0, 0), i32(0, 1), i32(1, 1)], (BATCH, 1), options("StridedSlice", beginMask=1, endMask=1))
        is_set = g.op("GREATER", [first, np.array(0, np.float32)], ((BATCH, 1), np.bool_))
        made = g.op("SELECT_V2", [is_set, made, h], (BATCH, UNITS))
    after = g.op("RESHAPE", [made, i32(1, BATCH, UNITS)], (1, BATCH, UNITS))
    if has_all:
        place = [g.op("CONCATENATION", [g.op("RESHAPE", [i, i32(1)], ((1,), np.int32)), i32(*rest)], ((3,), np.int32), options("Concatenation"))
                 for i, rest in ((step, (-1, -1)), (next_step, (0, 0)))]
        head = g.op("SLICE", [before, i32(0, 0, 0), place[0]], (-1, -1, -1))
        tail = g.op("SLICE", [before, place[1], i32(-1, -1, -1)], (-1, -1, -1))
        after = g.op("CONCATENATION", [head, after, tail], listed, options("Concatenation"))
    return states, g.whole(next_counter, next_step, after, made, *([cell] if c else []), sequence)


def run_layer(g, states, x):
    """The WHILE over the steps, with graphs 1 and 2: what is left of the states."""
    begin = [i32(0).reshape(()), i32(0).reshape(()), np.zeros(states[2], np.float32)] + [f(BATCH, UNITS) for _ in states[3:-1]]
    results = [g.add(state) for state in states]
    g.ops.append(("WHILE", [g.add(value) for value in begin] + [x], results, options("While", condSubgraphIndex=1, bodySubgraphIndex=2)))
    return results


def layer(kind, has_all, style=""):
    states, body = layer_body(kind, has_all, style)
    main = Graph()
    results = run_layer(main, states, main.input((STEPS, BATCH, FEATURES)))
    outputs = [main.op("RELU", [t], states[k]) for k, t in enumerate(results) if 2 <= k < len(results) - 1]
    return build(*main.whole(*outputs, results[1]), [below(states, 0, 1), body])


def branched_layers():
    """One layer, with weights of halves, in both branches."""
    states, body = layer_body("gru", False, "halves")
    branches = []
    for op in ("TANH", "ABS"):
        g = Graph()
        branches.append(g.whole(run_layer(g, states, g.op(op, [g.input(states[-1])], states[-1]))[3]))
    main = Graph()
    x, y = main.input(states[-1]), main.add(states[3])
    is_more = main.op("GREATER", [main.op("SUM", [x, i32(0, 1, 2)], (), options("Reducer")), np.array(0, np.float32)], ((), np.bool_))
    main.ops.append(("IF", [is_more, x], [y], options("If", thenSubgraphIndex=3, elseSubgraphIndex=4)))
    return build(*main.whole(y), [below(states, 0, 1), body, *branches])


def chained_condition():
    """A loop whose condition is said again and again, by operators that read the one before twice."""
    states = [NUMBER, (2, 3)]
    g = Graph()
    counter, _ = (g.input(state) for state in states)
    goes_on = g.op("LESS", [counter, i32(STEPS).reshape(())], ((), np.bool_))
    for _ in range(40):
        goes_on = g.op("LOGICAL_AND", [goes_on, goes_on], ((), np.bool_))
    body = Graph()
    i, x = (body.input(state) for state in states)
    after = body.whole(body.op("ADD", [i, i32(1).reshape(())], NUMBER, options("Add")), body.op("TANH", [x], (2, 3)))
    main = Graph()
    x = main.input((2, 3))
    results = [main.add(state) for state in states]
    main.ops.append(("WHILE", [main.add(i32(0).reshape(())), x], results, options("While", condSubgraphIndex=1, bodySubgraphIndex=2)))
    return build(*main.whole(results[1]), [g.whole(goes_on), after])


def control():
    for kind in ("lstm", "gru", "rnn"):
        for has_all in (True, False):
            yield f"WHILE {kind} {has_all}", layer(kind, has_all)
    yield "WHILE masked", layer("lstm", True, "masked")
    states = [NUMBER, (2, 3), (2, 3)]
    body = Graph()
    i, x, y = (body.input(state) for state in states)
    body_outputs = [body.op("ADD", [i, i32(1).reshape(())], NUMBER, options("Add")),
                    body.op("TANH", [body.op("ADD", [x, y], (2, 3), options("Add"))], (2, 3)), y]
    main = Graph()
    x, y = main.input((2, 3)), main.input((2, 3))
    results = [main.add(state) for state in states]
    main.ops.append(("WHILE", [main.add(i32(1).reshape(())), x, y], results, options("While", condSubgraphIndex=1, bodySubgraphIndex=2)))
    last = main.op("MUL", [results[1], results[2]], (2, 3), options("Mul"))
    yield "WHILE tanh", build(*main.whole(last, results[1], results[0]), [below(states, 0), body.whole(*body_outputs)])
    for limit in (-100, 100):
        branches = []
        for op in ("TANH", "ABS"):
            g = Graph()
            x = g.input((2, 3))
            branches.append(g.whole(g.op(op, [x], (2, 3)), x))
        main = Graph()
        x = main.input((2, 3))
        sum_of = main.op("SUM", [x, i32(0, 1)], (), options("Reducer"))
        is_more = main.op("GREATER", [sum_of, np.array(limit, np.float32)], ((), np.bool_))
        made, same = main.add((2, 3)), main.add((2, 3))
        main.ops.append(("IF", [is_more, x], [made, same], options("If", thenSubgraphIndex=1, elseSubgraphIndex=2)))
        yield f"IF {limit}", build(*main.whole(made, same), branches)


def loops():
    yield "WHILE step reset", layer("gru", True, "step reset")
    yield "WHILE chained condition", chained_condition()
    yield "IF layers", branched_layers()
    for is_constant in (False, True):
        codes = Quantized((2, 3), np.int8, 0.1, 3)
        states = [NUMBER, codes, (2, 3)]
        body = Graph()
        i, y, x = (body.input(state) for state in states)
        x = body.op("ADD", [x, body.op("DEQUANTIZE", [y], (2, 3))], (2, 3), options("Add"))
        part = body.whole(body.op("ADD", [i, i32(1).reshape(())], NUMBER, options("Add")), y, body.op("TANH", [x], (2, 3)))
        main = Graph()
        x = main.input((2, 3))
        y = main.add(Quantized(np.arange(6, dtype=np.int8).reshape(2, 3), np.int8, 0.1, 3)) if is_constant else main.input(codes)
        results = [main.add(state) for state in states]
        main.ops.append(("WHILE", [main.add(i32(1).reshape(())), y, x], results, options("While", condSubgraphIndex=1, bodySubgraphIndex=2)))
        yield f"WHILE tanh of codes {is_constant}", build(*main.whole(*results[1:]), [below(states, 0), part])


def runs_again():
    """A graph with a constant of 20 kB that 80 operators run."""
    g = Graph()
    part = g.whole(g.op("ADD", [g.input((1, 5000)), np.ones((1, 5000), np.float32)], (1, 5000), options("Add")))
    main = Graph()
    is_set, x = main.input(((), np.bool_)), main.input((1, 5000))
    for _ in range(80):
        y = main.add((1, 5000))
        main.ops.append(("IF", [is_set, x], [y], options("If", thenSubgraphIndex=1, elseSubgraphIndex=1)))
        x = y
    return build(*main.whole(x), [part])


def refusals():
    """Files that must be refused, with what the error says."""
    image, out = (1, 4, 4, 2), (1, 4, 4, 2)
    two = build([("SVDF", [0], [1], None), ("RELU", [1], [2], None), ("LSTM", [2], [3], None), ("SVDF", [3], [4], None)],
                [image] * 5, [0], [4])
    yield "two operators", two, "have no ONNX counterpart here: SVDF, LSTM"
    pads = np.array([[0, 0], [2, 2], [0, 0], [0, 0]], np.int32)
    yield "wide symmetric pads", one("MIRROR_PAD", image, pads, out=(1, 8, 4, 2), opts=options("MirrorPad", mode=1)), "SYMMETRIC paddings of more than 1"
    yield "computed axes", one("MEAN", image, ((1,), np.int32), out=(1, 2), opts=options("Reducer")), "the axes must be a constant"
    yield "32-bit codes", one("RELU", Quantized(image, np.int32, 0.1), out=Quantized(out, np.int32, 0.1)), "quantized to int32"
    turned = [("RFFT2D", [0, 1], [2], None), ("TRANSPOSE", [2, 3], [4], None), ("REAL", [4], [5], None)]
    yield "complex numbers", build(turned, [(3, 16), i32(1, 16), ((3, 9), np.complex64), i32(1, 0), ((9, 3), np.complex64), (9, 3)],
                                   [0], [5]), "it is not supported for complex numbers"
    itself = ("WHILE", [0], [1], options("While", condSubgraphIndex=1, bodySubgraphIndex=1))
    yield "a graph that runs itself", build([itself], [((), np.bool_)] * 2, [0], [1], [([itself], [((), np.bool_)] * 2, [0], [1])]), \
        "it runs a graph that it is part of"
    chain = [([("IF", [0, 0], [1], options("If", thenSubgraphIndex=i + 1, elseSubgraphIndex=i + 1))], [((), np.bool_)] * 2, [0], [1])
             for i in range(60)]
    last = ([("LOGICAL_NOT", [0], [1], None)], [((), np.bool_)] * 2, [0], [1])
    yield "a graph that is run again and again", runs_again(), "names the same data again and again"
    yield "deep graphs", build(*chain[0], parts=[*chain[1:], last]), "more than 50 deep"
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(two, 0))
    model.subgraphs[0].operators = model.subgraphs[0].operators[1:2]
    model.subgraphs[0].outputs = [2]
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    yield "nothing makes it", bytes(builder.Output()), "t1 is read before anything makes it"
    short = one("ADD", image, f(2), out=out, opts=options("Add"))
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(short, 0))
    model.buffers[1].data = model.buffers[1].data[:4]
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    yield "short constant", bytes(builder.Output()), "it has 4 bytes; its shape [2] needs 8"
    pooled = ("MAX_POOL_2D", [0], [1], pool(1, 1, 1))
    rows = build([pooled, ("FULLY_CONNECTED", [1, 2], [3], options("FullyConnected"))],
                 [image, (4, 8), f(3, 8), (4, 3)], [0], [3])
    yield "rows of a pool", rows, "t1 is said to have 2 axes, its operator makes 4"
    yield "truncated", two[:len(two) // 2], "truncated or damaged"


def made_models():
    for models in (any_layouts, special, recurrent, control, sparse, convolutions, products, elementwise, reductions, layout, selections, quantized, transforms, loops):
        yield from models()


def draw(detail):
    shape, dtype = detail["shape"], detail["dtype"]
    if np.issubdtype(dtype, np.floating):
        return rng.uniform(-2, 2, shape).astype(dtype)
    if dtype == np.bool_:
        return rng.uniform(0, 1, shape) > 0.5
    low, high = (0, 4) if dtype in (np.int32, np.int64) else (np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    return rng.integers(low, high, shape).astype(dtype)


def with_true_shapes(content):
    """LiteRT finds the shapes of what is computed; the file then says them, as a converter's does."""
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    interpreter.allocate_tensors()
    feeds = [draw(detail) for detail in interpreter.get_input_details()]
    for detail, value in zip(interpreter.get_input_details(), feeds):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for place, output in zip(model.subgraphs[0].outputs, outputs):
        model.subgraphs[0].tensors[place].shape = list(output.shape)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), feeds, outputs


def difference(expected, got, limit):
    """What is wrong; empty: nothing."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return f"{got.dtype}{got.shape}, LiteRT has {expected.dtype}{expected.shape}"
    if expected.size == 0:
        return ""
    if np.issubdtype(expected.dtype, np.floating):
        span = max(float(np.abs(expected).max()), 1e-6)
        worst = float(np.abs(expected.astype(np.float64) - got).max()) / span
        return "" if worst <= limit else f"differs by {worst:.2g} of the range"
    worst = int(np.abs(expected.astype(np.int64) - got.astype(np.int64)).max())
    return "" if worst <= ROUNDED.get(expected.dtype, 0) else f"differs by {worst}"


def check(pared, path, feeds, outputs, limit):
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run([pared, "import", f"--model={path}", f"--dir={folder}", "--confine=false"],
                              capture_output=True, text=True)
        onnx_file = os.path.join(folder, "model.onnx")
        if made.returncode != 0 or not os.path.exists(onnx_file):
            return f"is not read: {made.stdout}{made.stderr}"
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            onnx.checker.check_model(onnx_file)
            session = ort.InferenceSession(onnx_file, settings)
            got = session.run(None, {i.name: value for i, value in zip(session.get_inputs(), feeds)})
        except Exception as e:  # onnxruntime's own types, which share no base
            return f"does not run in onnxruntime: {e}"
        for k, (expected, mine) in enumerate(zip(outputs, got)):
            wrong = difference(expected, mine, limit)
            if wrong:
                return f"output {k} {wrong}"
    return ""


def refuses(pared, content, expected):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.tflite")
        pathlib.Path(path).write_bytes(content)
        made = subprocess.run([pared, "import", f"--model={path}", f"--dir={folder}", "--confine=false"],
                              capture_output=True, text=True)
        return "" if expected in made.stdout + made.stderr else f"says {made.stdout}{made.stderr}, not {expected!r}"


def main():
    pared, words = sys.argv[1], sys.argv[2:]
    count, failed = 0, 0
    for name, content, expected in refusals():
        count += 1
        wrong = refuses(pared, content, expected)
        if wrong:
            failed += 1
            print(f"{name}: {wrong}")
    for name, content, same in itertools.chain(((name, content, content) for name, content in made_models()), stand_ins()):
        if words and not any(word in name for word in words):
            continue
        count += 1
        with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
            try:
                shaped, feeds, outputs = with_true_shapes(same)
            except (RuntimeError, ValueError) as e:
                failed += 1
                print(f"{name}: LiteRT does not run it: {e}")
                continue
            file.write(shaped if same is content else content)
            file.flush()
            wrong = check(pared, file.name, feeds, outputs, LIMIT)
        if wrong:
            failed += 1
            print(f"{name}: {wrong}")
    cache = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))
    for path in sorted(cache.glob("*/*.tflite")):
        if words and not any(word in path.name for word in words):
            continue
        count += 1
        _, feeds, outputs = with_true_shapes(path.read_bytes())
        wrong = check(pared, str(path), feeds, outputs, WHOLE_LIMIT)
        if wrong:
            failed += 1
            print(f"{path.name}: {wrong}")
    print(f"{count} models, {failed} that pared reads otherwise")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
