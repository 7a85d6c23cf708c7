#!/usr/bin/env python3
"""The table of operators with float16 (passes/fp16_ops.cc) against the operators' schemas: half_types.py

Every operator of the table must take float16 in each opset from the one given there to the last that pared reads, and
the inputs that take float32 but not float16 must be those that StaysSingle names. Exits 77 (skipped) without onnx.
"""
import pathlib
import re
import sys

try:
    import onnx
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

SOURCE = pathlib.Path(__file__).parents[2] / "passes/fp16_ops.cc"
OPSET_MAX = 23
# Inputs of float32 only, by operator: some of what StaysSingle says.
SINGLE = {("Resize", 1), ("Resize", 2), ("Upsample", 1), ("Dropout", 1)}


def types_of(schema, formal):
    constraints = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    return constraints.get(formal.type_str, {formal.type_str})


def main():
    text = SOURCE.read_text(encoding="utf-8")
    table = text[text.index("HalfOps()"):text.index("return ops;")]
    ops = re.findall(r'\{"(\w+)",\s*(\d+)\}', table)
    faults = []
    for op, since in ops:
        for opset in range(int(since), OPSET_MAX + 1):
            try:
                schema = onnx.defs.get_schema(op, opset, "")
            except onnx.defs.SchemaError:
                faults.append(f"{op} is no operator of opset {opset}")
                continue
            if schema.deprecated:
                break
            takes_half = any("tensor(float16)" in types_of(schema, f) for f in [*schema.inputs, *schema.outputs])
            if not takes_half:
                faults.append(f"{op} of opset {opset} has no float16")
            for i, formal in enumerate(schema.inputs):
                types = types_of(schema, formal)
                is_single = "tensor(float)" in types and "tensor(float16)" not in types
                if is_single and (op, i) not in SINGLE:
                    faults.append(f"input {i} of {op} of opset {opset} is float32 only")
    print("\n".join(faults) or f"{len(ops)} operators agree")
    sys.exit(bool(faults) or len(ops) < 50)


if __name__ == "__main__":
    main()
