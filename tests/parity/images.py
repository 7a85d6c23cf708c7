#!/usr/bin/env python3
"""Pictures prepared by pared beside the arithmetic of the libraries that its presets are named after.

usage: images.py DUMP_SAMPLES          77: numpy or Pillow is missing

Pictures of many kinds and sizes go through each preset. Pillow decodes and resizes for torchvision, timm and the crop of tflite:
equal bytes are asked for. The point filter (OpenCV's, TensorFlow's) is computed here in float: one intensity step is allowed.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    from PIL import Image
except ImportError as missing:
    print(f"skipped: no {missing.name}")
    sys.exit(77)

IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def pictures(folder, random):
    """Files of every kind that is read, photographs in character: smooth with noise."""
    def smooth(height, width, channels):
        small = random.integers(0, 256, (4, 5, channels), np.uint8)
        image = Image.fromarray(small.squeeze()).resize((width, height), Image.BICUBIC)
        noise = random.integers(-9, 10, np.asarray(image).shape)
        return Image.fromarray(np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8))

    sizes = [(300, 400), (401, 299), (224, 224), (97, 640), (31, 17), (513, 512)]
    for i, (height, width) in enumerate(sizes):
        smooth(height, width, 3).save(folder / f"a{i}.jpg", quality=90)
        smooth(height, width, 3).save(folder / f"b{i}.jpeg", progressive=True, subsampling=0)
        smooth(height, width, 1).save(folder / f"c{i}.JPG")
        smooth(height, width, 3).save(folder / f"d{i}.png")
        smooth(height, width, 4).save(folder / f"e{i}.png")
    smooth(90, 120, 3).quantize(40).save(folder / "f.png")
    smooth(90, 120, 1).convert("1").save(folder / "g.png")
    Image.fromarray(random.integers(0, 65536, (50, 60), np.uint16)).save(folder / "h.png")


def crop(image, top, left, height, width):
    out = np.zeros((height, width, 3), np.uint8)
    source = np.asarray(image)
    for y in range(height):
        for x in range(width):
            if 0 <= top + y < source.shape[0] and 0 <= left + x < source.shape[1]:
                out[y, x] = source[top + y, left + x]
    return out


def shorter_side(image, size, filter):
    """torchvision.transforms.Resize(int(size / 0.875)), CenterCrop(size)."""
    side, (w, h) = int(size / 0.875), image.size
    new = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
    image = image.resize(new, filter)
    return crop(image, int(round((new[1] - size) / 2)), int(round((new[0] - size) / 2)), size, size)


def crop_first(image, size, filter):
    (w, h), side = image.size, max(1, int(0.875 * min(image.size)))
    left, top = (w - side) // 2, (h - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)).resize((size, size), filter))


def point_resize(source, height, width):
    """The four nearest pixels, half-pixel centres, ends repeated: cv2.INTER_LINEAR, in float."""
    def axis(n_from, n_to):
        center = (np.arange(n_to) + 0.5) * n_from / n_to - 0.5
        low = np.floor(center)
        return (np.clip(low, 0, n_from - 1).astype(int), np.clip(low + 1, 0, n_from - 1).astype(int), center - low)
    y0, y1, v = axis(source.shape[0], height)
    x0, x1, u = axis(source.shape[1], width)
    s = source.astype(np.float64)
    top = s[y0][:, x0] * (1 - u)[None, :, None] + s[y0][:, x1] * u[None, :, None]
    bottom = s[y1][:, x0] * (1 - u)[None, :, None] + s[y1][:, x1] * u[None, :, None]
    return top * (1 - v)[:, None, None] + bottom * v[:, None, None]


def letterbox(image, size):
    """Ultralytics' LetterBox with auto=False."""
    w, h = image.size
    r = min(size / h, size / w)
    nw, nh = max(1, round(w * r)), max(1, round(h * r))
    dw, dh = (size - nw) / 2, (size - nh) / 2
    top, left = int(round(dh - 0.1)), int(round(dw - 0.1))
    out = np.full((size, size, 3), 114.0)
    out[top:top + nh, left:left + nw] = point_resize(np.asarray(image), nh, nw)
    return out


def planar(values):
    return values.transpose(2, 0, 1)


def torchvision(image):
    return planar((shorter_side(image, 224, Image.BILINEAR) / 255 - IMAGENET[0]) / IMAGENET[1])


def timm(image):
    return planar((shorter_side(image, 224, Image.BICUBIC) / 255 - IMAGENET[0]) / IMAGENET[1])


def tflite(image):
    return (crop_first(image, 224, Image.BILINEAR) / 1.0 - 127.5) / 127.5


def efficientnet_lite(image):
    return planar((crop_first(image, 224, Image.BICUBIC) / 1.0 - 127) / 128)


def bgr(image):
    # Rows before columns, one at a time: Pillow 13 may turn the order round.
    rows = image.resize((40, image.height), Image.BICUBIC)
    return planar(np.asarray(rows.resize((40, 30), Image.BICUBIC))[:, :, ::-1] / 255)


# manifest, its arithmetic, and what may differ: intensity steps over the divisor
CASES = [
    ({"preset": "torchvision"}, torchvision, 0),
    ({"preset": "timm"}, timm, 0),
    ({"preset": "tflite"}, tflite, 0),
    ({"preset": "tflite", "filter": "bicubic", "layout": "nchw", "mean": 127, "std": 128}, efficientnet_lite, 0),
    ({"fit": "stretch", "height": 30, "width": 40, "filter": "bicubic", "mean": 0, "std": 1, "channels": "bgr"}, bgr, 0),
    ({"preset": "ultralytics"}, lambda image: planar(letterbox(image, 640) / 255), 1 / 255),
]


def main(program):
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        folder = root / "data"
        folder.mkdir()
        pictures(folder, np.random.default_rng(5))
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for manifest, arithmetic, steps in CASES:
            (folder / "dataset.json").write_text(json.dumps({"images": manifest}))
            out = root / "out"
            out.mkdir(exist_ok=True)
            for old in out.iterdir():
                old.unlink()
            subprocess.run([program, str(folder), str(out)], check=True)
            worst = 0.0
            for i, file in enumerate(files):
                if not (out / f"{i}.npy").exists():
                    print(f"{file.name}: {(out / f'{i}.txt').read_text()}")
                    failed += 1
                    continue
                with Image.open(file) as image:
                    # Pillow keeps the lower 8 of 16 bits; the upper ones are the picture
                    rgb = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB") \
                        if image.mode.startswith("I") else image.convert("RGB")
                    expected = arithmetic(rgb)
                ours = np.load(out / f"{i}.npy")[0]
                difference = np.abs(ours - expected).max() if ours.shape == expected.shape else np.inf
                worst = max(worst, difference)
                if difference > steps + 1e-5:
                    print(f"{file.name}: {manifest}: differs by {difference:.5f} ({ours.shape}, {expected.shape})")
                    failed += 1
            print(f"{json.dumps(manifest)}: {len(files)} pictures, largest difference {worst:.2g}")
    print("no picture differs" if failed == 0 else f"{failed} pictures differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
