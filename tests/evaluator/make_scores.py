#!/usr/bin/env python3
"""Writes scores.json: random predictions and what scikit-learn and pycocotools make of them.

usage: make_scores.py > scores.json       needs the Python packages scikit-learn and pycocotools
"""
import contextlib
import io
import json
import sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn import metrics
from scipy.stats import binomtest, entropy

random = np.random.default_rng(11)


def classes():
    for count, size in [(40, 5), (200, 12), (7, 3)]:
        labels = random.integers(0, size, count)
        predictions = np.where(random.random(count) < 0.6, labels, random.integers(0, size + 1, count))
        with np.errstate(all="ignore"):
            recalls = metrics.recall_score(labels, predictions, labels=np.unique(labels), average=None, zero_division=0)
        interval = binomtest(int((labels == predictions).sum()), count).proportion_ci(0.95, "wilson")
        yield {"labels": labels.tolist(), "predictions": predictions.tolist(),
               "accuracy": metrics.accuracy_score(labels, predictions), "mean_class_accuracy": recalls.mean(),
               "f1_macro": metrics.f1_score(labels, predictions, average="macro", zero_division=0),
               "low": interval.low, "high": interval.high}


def binary():
    for count, steps in [(50, 0), (300, 8), (20, 3)]:  # steps: ties
        labels = (random.random(count) < 0.3).astype(int)
        scores = random.random(count) * 0.7 + labels * 0.3
        scores = np.round(scores * steps) / steps if steps else scores
        yield {"labels": labels.tolist(), "scores": scores.tolist(), "roc_auc": metrics.roc_auc_score(labels, scores),
               "f1": metrics.f1_score(labels, scores >= 0.5)}


def divergence():
    for count in (2, 10):
        p, q = random.dirichlet(np.ones(count)), random.dirichlet(np.ones(count))
        yield {"p": p.tolist(), "q": q.tolist(), "kl": entropy(p, q)}


def detections():
    for pictures, categories, truths, found in [(5, 3, 20, 60), (8, 1, 30, 200), (3, 4, 6, 500)]:
        truth, result = [], []
        for i in range(truths):
            x, y, w, h = (*random.uniform(0, 60, 2), *random.uniform(5, 40, 2))
            truth.append({"id": i + 1, "image_id": int(random.integers(pictures)), "category_id": int(random.integers(categories)),
                          "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(random.random() < 0.15)})
        for _ in range(found):
            base = truth[random.integers(truths)]
            box = (np.array(base["bbox"]) * (1 + random.normal(0, 0.12, 4))).tolist()
            moved = random.random() < 0.3
            result.append({"image_id": base["image_id"] if not moved else int(random.integers(pictures)),
                           "category_id": base["category_id"], "bbox": box, "score": float(np.round(random.random(), 2))})
        coco = COCO()
        coco.dataset = {"images": [{"id": i} for i in range(pictures)], "annotations": truth,
                        "categories": [{"id": i} for i in range(categories)]}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes([dict(r) for r in result]), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        yield {"pictures": pictures, "truth": truth, "detections": result,
               "map50_95": evaluation.stats[0], "map50": evaluation.stats[1]}


json.dump({"classes": list(classes()), "binary": list(binary()), "divergence": list(divergence()),
           "detections": list(detections())}, sys.stdout)
print()
