#!/usr/bin/env python3
"""Writes the .npz files beside itself: NumPy's own archives for tests. Needs numpy."""
import os

import numpy as np

arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) / 4, "ids": np.array([[7, 8, 9], [1, 2, 300]], np.int64),
          "labels": np.array([1, 0], np.uint8)}
folder = os.path.dirname(os.path.abspath(__file__))
np.savez(os.path.join(folder, "stored.npz"), **arrays)
np.savez_compressed(os.path.join(folder, "deflated.npz"), **arrays, zeros=np.zeros(4000, np.int16))

ids, mask = np.array([[101, 102, 0, 0], [101, 7, 8, 102]], np.int32), np.array([[1, 1, 0, 0], [1, 1, 1, 1]], np.uint8)
tokens = {"tokens": {"input_ids": ids, "attention_mask": mask, "labels": np.array([2, 3])},
          "tokens_axis": {"input_ids": ids, "attention_mask": mask[:, :3]},
          "tokens_float": {"input_ids": ids.astype(np.float32)},
          "tokens_other": {"input_ids": ids, "lengths": np.array([2, 4])},
          "tokens_mask": {"input_ids": ids, "attention_mask": mask[:1].repeat(2, 0) * np.array([[1], [0]], np.uint8)}}
for name, members in tokens.items():
    np.savez(os.path.join(folder, f"{name}.npz"), **members)
