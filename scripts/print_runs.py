#!/usr/bin/env python3
"""Print the answer of GET /v1/runs, read from standard input, as a table."""
import json
import sys

COLUMNS = [  # heading, metric, format
    ("bytes", "size_bytes", "{:,.0f}"), ("compressed", "size_compressed_bytes", "{:,.0f}"),
    ("sparsity", "sparsity", "{:.3f}"), ("top-1", "top1", "{:.4f}"), ("agreement", "agreement", "{:.4f}"),
    ("SQNR dB", "sqnr_db", "{:.1f}"), ("ms p50", "latency_ms_p50", "{:.4f}"),
    ("size x", "size_ratio", "{:.3f}"), ("latency x", "latency_ratio", "{:.3f}"),
]


def row(run):
    metrics = run.get("metrics", {})
    cells = [form.format(metrics[name]) if name in metrics else "-" for _, name, form in COLUMNS]
    if run.get("error"):
        cells.append(run["error"]["message"])
    return [run["chain"], *cells]


def main():
    runs = json.load(sys.stdin)
    rows = [["chain", *(heading for heading, _, _ in COLUMNS)], *map(row, runs["runs"])]
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for cells in rows:
        print("  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:])), *cells[len(widths):]]))


if __name__ == "__main__":
    main()
