#!/usr/bin/env python3
"""Writes the ONNX backend test cases of the installed `onnx` package as files.

    export_backend_cases.py OUT

OUT/KIND/NAME gets model.onnx, tolerance ("rtol atol") and test_data_set_N/{input,output}_N.pb.
Cases whose inputs or outputs are neither tensors, sequences nor optionals get none of the data, but a file `skip`
with the reason.
"""

import shutil
import sys
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

KINDS = ["node", "simple", "pytorch-operator", "pytorch-converted"]


def to_proto(value, name, kind):
    if kind == "optional_type":
        return numpy_helper.from_optional(value, name)
    if kind == "sequence_type":
        return numpy_helper.from_list(value, name)
    if isinstance(value, TensorProto):
        return value
    return numpy_helper.from_array(numpy.asarray(value), name)


def clamp_versions(model):
    """To what pared reads. Cases of operators that another opset defined otherwise then fail, and
    are listed."""
    model.ir_version = min(model.ir_version, 12)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = min(max(opset.version, 7), 24)


def write_data(case, folder):
    graph = case.model.graph
    for i, data_set in enumerate(case.data_sets):
        target = folder / f"test_data_set_{i}"
        target.mkdir()
        for kind, infos, values in zip(["input", "output"], [graph.input, graph.output], data_set):
            for j, (info, value) in enumerate(zip(infos, values)):
                type_kind = info.type.WhichOneof("value")
                if type_kind not in ("tensor_type", "sequence_type", "optional_type"):
                    (folder / "skip").write_text(type_kind)
                    return
                proto = to_proto(value, info.name, type_kind)
                (target / f"{kind}_{j}.pb").write_bytes(proto.SerializeToString())


def export(case, folder):
    if case.model is None:
        shutil.copytree(case.model_dir, folder)
        model = onnx.load(folder / "model.onnx")
        clamp_versions(model)
        onnx.save(model, folder / "model.onnx")
    else:
        folder.mkdir(parents=True)
        clamp_versions(case.model)
        (folder / "model.onnx").write_bytes(case.model.SerializeToString())
        write_data(case, folder)
    (folder / "tolerance").write_text(f"{case.rtol} {case.atol}\n")


def main():
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    count = 0
    for kind in KINDS:
        for case in load_model_tests(kind=kind):
            export(case, out / kind / case.name)
            count += 1
    print(f"{count} cases in {out}")


if __name__ == "__main__":
    main()
