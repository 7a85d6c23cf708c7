#!/usr/bin/env python3
"""Writes scores.json: random predictions and what scikit-learn, SciPy, pycocotools, OpenCV and rapidfuzz make of them.

usage: make_scores.py > scores.json       needs the Python packages scikit-learn, pycocotools, opencv-python-headless, rapidfuzz
"""
import contextlib
import io
import json
import sys

import cv2
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rapidfuzz.distance import Levenshtein
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


def mean_intervals(answers):
    """Of the mean of recalls: the classes' own Wilson intervals, their distances added in squares."""
    for answer in answers:
        labels, predictions = np.array(answer["labels"]), np.array(answer["predictions"])
        shares = []
        for label in np.unique(labels):
            of_class = labels == label
            interval = binomtest(int((predictions[of_class] == label).sum()), int(of_class.sum())).proportion_ci(0.95, "wilson")
            shares.append((interval.low, (predictions[of_class] == label).mean(), interval.high))
        low, share, high = np.array(shares).T
        yield {"low": share.mean() - np.sqrt(((share - low) ** 2).sum()) / len(share),
               "high": share.mean() + np.sqrt(((high - share) ** 2).sum()) / len(share)}


def texts():
    for length, alphabet in [(0, 3), (12, 4), (40, 20), (40, 2)]:
        wanted = random.integers(1, alphabet + 1, length).tolist()
        read = [int(c) for c in wanted if random.random() < 0.8 for _ in range(1 + (random.random() < 0.1))] + [1]
        yield {"wanted": wanted, "read": read, "errors": Levenshtein.distance(wanted, read)}


def pictures():
    for peak in (1.0, 255.0):
        target = (random.random((6, 7)) * peak).astype(np.float32)
        values = (target + random.normal(0, peak / 20, target.shape)).astype(np.float32)
        yield {"target": target.ravel().tolist(), "values": values.ravel().tolist(), "peak": peak,
               "psnr_db": cv2.PSNR(target, values.clip(0, peak).astype(np.float32), peak)}


def fidelity():
    for noise in (1e-4, 0.3, 3):
        reference = random.normal(0, 2, (5, 8)).astype(np.float32)
        output = (reference + random.normal(0, noise, reference.shape)).astype(np.float32)
        power = metrics.mean_squared_error(reference.ravel(), np.zeros(reference.size))
        yield {"reference": reference.tolist(), "output": output.tolist(),
               "sqnr_db": 10 * np.log10(power / metrics.mean_squared_error(reference.ravel(), output.ravel())),
               "cosine": metrics.pairwise.cosine_similarity(reference.reshape(1, -1).astype(float), output.reshape(1, -1).astype(float))[0, 0],
               "agreement": metrics.accuracy_score(reference.argmax(1), output.argmax(1))}


def retrieval():
    gallery, queries = random.normal(0, 1, (30, 6)).astype(np.float32), random.normal(0, 1, (12, 6)).astype(np.float32)
    nearest = metrics.pairwise.cosine_similarity(queries, gallery).argmax(1)
    yield {"gallery": gallery.tolist(), "queries": queries.tolist(), "nearest": nearest.tolist()}


def heads():
    """Raw outputs of YOLO heads, [fields, boxes]: v8, v9 and v11 have class scores, v5 an objectness before them."""
    for has_objectness in (False, True):
        centres, classes = random.uniform(40, 600, (12, 4)), 4
        boxes = centres[random.integers(12, size=150)] * (1 + random.normal(0, 0.04, (150, 4)))
        boxes[:, 2:] = boxes[:, 2:] / 4 + 8
        scores = random.random((150, classes)) ** 4
        objectness = random.random((150, 1)) if has_objectness else np.ones((150, 1))
        head = np.concatenate([boxes, objectness, scores] if has_objectness else [boxes, scores], 1).astype(np.float32)
        boxes, scores = head[:, :4].astype(float), head[:, -classes:].astype(np.float32)
        scores = scores * head[:, 4:5] if has_objectness else scores
        best = scores.argmax(1)
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], 1)
        kept = cv2.dnn.NMSBoxesBatched(corners.tolist(), scores.max(1).tolist(), best.tolist(), 0.25, 0.45)
        kept = sorted(np.array(kept).ravel().tolist(), key=lambda i: -scores[i].max())
        yield {"rows": head.tolist(), "has_objectness": has_objectness,
               "kept": [{"score": float(scores[i].max()), "category": int(best[i]), "left": corners[i, 0], "top": corners[i, 1],
                         "right": corners[i, 0] + corners[i, 2], "bottom": corners[i, 1] + corners[i, 3]} for i in kept]}


def rounded(value):
    """float32 numbers in as many digits as they have."""
    if isinstance(value, dict):
        return {k: rounded(v) if k in ("rows", "gallery", "queries", "reference", "output", "target", "values") else v for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else float(f"{value:.9g}")


answers = {"classes": list(classes()), "binary": list(binary()), "divergence": list(divergence()), "detections": list(detections())}
answers["mean_intervals"] = list(mean_intervals(answers["classes"]))
for part in (texts, pictures, fidelity, retrieval, heads):
    answers[part.__name__] = [rounded(answer) for answer in part()]
json.dump(answers, sys.stdout)
print()
