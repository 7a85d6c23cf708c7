#!/usr/bin/env python3
"""OpenVINO for compare_onnxruntime.py --openvino: openvino_server.py MODEL THREADS INPUT.npy...

Prints "ready", then for each N read from standard input the wall milliseconds of N runs. Inputs are in the model's order.
"""
import sys
import time

import numpy as np
import openvino


def main():
    model = openvino.Core().read_model(sys.argv[1])
    inputs = [np.load(path) for path in sys.argv[3:]]
    model.reshape({port: list(x.shape) for port, x in zip(model.inputs, inputs)})
    options = {"INFERENCE_NUM_THREADS": int(sys.argv[2]), "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
               "ENABLE_CPU_PINNING": False}
    request = openvino.compile_model(model, "CPU", options).create_infer_request()
    print("ready", flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            request.infer(inputs, share_inputs=True)
            times.append((time.perf_counter() - begin) * 1e3)
        print(*times, flush=True)


if __name__ == "__main__":
    main()
