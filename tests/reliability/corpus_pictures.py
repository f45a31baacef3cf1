"""Hostile and broken pictures, written byte by byte or with Pillow; all small but for a few that are sparse.

`write(folder)` makes them and returns their cases; those in MAY_READ are odd but may be read.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from latent_prior.evaluate.stylegan import truth
from latent_prior.files.pictures import read_mask, read_picture
from PIL import Image, features
from reliability.in_child import Case

CANARY = "executed"  # a file that appears in the corpus's folder if a PostScript file was run

# large but honest, or with what nobody needs to read
MAY_READ = {
    "png 64 MP of one colour",
    "png 64 MP palette with alpha",
    "png 64 MP 16 bits with alpha",
    "png 40 million high",
    "png of one pixel",
    "png of 200000 empty chunks",
    "png of 2000 APNG frames",
    "png orientation 99",
    "png of 5 MB EXIF entries",
    "tiff 64 MP floats",
    "tiff with a looping directory",
    "tiff whose EXIF is itself",
    "tiff with a tag for all",
    "jpeg of 30 scans",
    "jpeg of 2 MB EXIF",
    "jpeg of 64 KB segments",
    "gif of 3000 frames",
    "gif of 2 MB comments",
    "bmp rle of single pixels",
    "ppm in digits",
    "webp 64 MP",
    "webp of 300 frames",
}


def look(path: Path) -> None:
    read_picture(path, "IMAGE")


def look_as_mask(path: Path) -> None:
    read_mask(path, Image.new("RGB", (32, 32)), "--mask")


def look_at_domain(path: Path) -> None:
    """As `evaluate stylegan --real DIR` does."""
    list(truth.read_pictures(truth.picture_files(path), 32))


def write(folder: Path) -> list[Case]:
    """All cases in `folder`."""
    cases = write_small(folder) + list(_files(folder, _bombs()))
    for name, size in [("sparse 10 GB", 10 << 30), ("sparse 127 MB", 127_000_000)]:
        for kind, start in STARTS.items():
            (cut,) = _files(folder, [(f"{kind} {name}", start)])
            os.truncate(cut[2], size)
            cases.append(cut)
    return cases + list(_domains(folder, ("jpeg_of_20000_scans", "png_65_MP")))


def write_small(folder: Path) -> list[Case]:
    """Those that are written in a moment, and cost little to refuse."""
    cases = list(_files(folder, [*_lies(folder / CANARY), *_truncated()])) + list(_no_files(folder))
    return cases + list(_domains(folder, ("pipe", "zero", "loop", "postscript")))


def _files(folder: Path, contents: Iterable[tuple[str, bytes | Callable[[], bytes]]]) -> Iterator[Case]:
    for name, content in contents:
        path = folder / f"{name.replace(' ', '_')}.png"
        path.write_bytes(content() if callable(content) else content)
        yield name, look, path


def png(width: int, height: int, depth: int, kind: int, data: bytes, more: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG with chunks before and after its pixels, which are compressed `data` (PNG specification, chapter 11)."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def small_png(more: bytes = b"", after: bytes = b"") -> bytes:
    return png(32, 32, 8, 2, zlib.compress(bytes(32 * 97)), more, after)


def tiff(tags: dict[int, tuple[int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory: {tag: (type, count, value or offset)}; `data` begins at byte 2000."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return head.ljust(2000, b"\0") + data


def bigtiff(tag: int, kind: int, count: int) -> bytes:
    """A big-endian BigTIFF of one entry."""
    return b"MM\0+\0\x08\0\0" + struct.pack(">QQHHQQ", 16, 1, tag, kind, count, 64) + bytes(4 * count + 100)


def plain_tiff(changes: dict[int, tuple[int, int, int]], data: bytes = bytes(1024), following: int = 0) -> bytes:
    """A grey TIFF of 32 x 32 pixels with some entries changed."""
    plain = {256: (4, 1, 32), 257: (4, 1, 32), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 2000)}
    return tiff(plain | {277: (3, 1, 1), 278: (4, 1, 32), 279: (4, 1, 1024)} | changes, data, following)


def saved(fmt: str, image: Image.Image | None = None, **options) -> bytes:
    """What Pillow writes; the default is a picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = BytesIO()
    (image or Image.fromarray(noise)).save(file, fmt, **options)
    return file.getvalue()


def bmp(width: int, height: int, bits: int, compression: int, data: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    start = 14 + 40 + (1024 if bits == 8 else 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + bytes(start - 54) + data


def progressive(scans: int) -> bytes:
    """A JPEG of 2000 x 2000 pixels whose last scan is repeated."""
    whole = saved("JPEG", Image.new("L", (2000, 2000)), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + whole[-2:]


Image.init()
MISSING = {name for name in ("webp", "avif") if not features.check(name)}  # from this build of Pillow
STARTS = {
    "png": small_png()[:33] + struct.pack(">I", 120_000_000) + b"tEXt",
    "webp": b"RIFF" + struct.pack("<I", 126_999_992) + b"WEBPVP8 ",
    "tiff": plain_tiff({273: (4, 31_000_000, 2000)}),
    "jpeg": saved("JPEG")[:20],
    "gif": saved("GIF")[:13],
}


def _bombs() -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    """Files that want much time or memory."""

    def zeros(count: int) -> bytes:
        return zlib.compress(bytes(count), 1)

    palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256))
    text = zeros(100_000_000)
    yield "png 64 MP of one colour", lambda: png(8000, 8000, 8, 0, zeros(8000 * 8001))
    yield "png 64 MP palette with alpha", lambda: png(8000, 8000, 8, 3, zeros(8000 * 8001), palette)
    yield "png 64 MP 16 bits with alpha", lambda: png(8000, 8000, 16, 6, zeros(8000 * 64001))
    yield "png 65 MP", lambda: png(8000, 8125, 8, 0, zeros(10))
    yield "png of 2^31-1 pixels a side", png(2**31 - 1, 2**31 - 1, 1, 0, zeros(10))
    yield "png of no pixels", png(0, 0, 8, 2, zeros(10))
    yield "png of one pixel", png(1, 1, 8, 0, zeros(2))
    yield "png 40 million high", lambda: png(1, 40_000_000, 1, 0, zeros(10))
    yield "png with a zTXt bomb", small_png(chunk(b"zTXt", b"a\0\0" + text))
    yield "png with an iTXt bomb", small_png(chunk(b"iTXt", b"a\0\1\0\0\0" + text))
    yield "png with an iCCP bomb", small_png(chunk(b"iCCP", b"a\0\0" + text))
    yield "png with 500 text bombs", small_png(500 * chunk(b"zTXt", b"a\0\0" + zeros(1_000_000)))
    yield "png with a text bomb after its pixels", small_png(after=chunk(b"zTXt", b"a\0\0" + text))
    yield "png of 200000 empty chunks", small_png(200_000 * chunk(b"abCd", b""))
    yield "png of 2000 APNG frames", saved("PNG", save_all=True, append_images=[Image.new("1", (2, 2))] * 2000)
    turned = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0"
    yield "png orientation 99", saved("PNG", exif=turned + bytes(8))
    many = 400_000 * b"\x12\1\3\0\1\0\0\0\1\0\0\0"
    yield "png of 5 MB EXIF entries", saved("PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + many)
    yield "tiff 64 MP floats", lambda: saved("TIFF", Image.new("F", (8000, 8000)), compression="tiff_deflate")
    yield "tiff 2^32-1 pixels a side", plain_tiff({256: (4, 1, 2**32 - 1), 257: (4, 1, 2**32 - 1)})
    tiles = {322: (4, 1, 1 << 20), 323: (4, 1, 2000), 324: (4, 1, 2000)}
    yield "tiff with a tile of 2 GB", plain_tiff({259: (3, 1, 8)} | tiles)
    yield "tiff with a strip of 4 GB", plain_tiff({259: (3, 1, 8), 278: (4, 1, 2**32 - 1), 279: (4, 1, 2**32 - 1)})
    yield "tiff of 65535 samples", plain_tiff({277: (3, 1, 65535)})
    yield "tiff with a looping directory", plain_tiff({}, following=8)
    yield "tiff whose EXIF is itself", plain_tiff({34665: (4, 1, 8), 330: (4, 1, 8)})
    yield "tiff with a tag for all", plain_tiff({700: (1, 2**32 - 1, 0)})
    strips = {278: (4, 1, 1), 273: (4, 1_000_000, 2000), 279: (4, 1_000_000, 2000)}
    yield "tiff with a million strips", plain_tiff(strips, bytes(4_000_000))
    yield "bigtiff with a million strips", bigtiff(273, 4, 1_000_000)
    yield "tiff of text tags", plain_tiff({256: (2, 4, 0x61616161), 258: (2, 1_000, 2000), 262: (12, 1, 2000)})
    yield "bigtiff of 2^60 entries", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 60) + bytes(64)
    yield "jpeg of 30 scans", lambda: progressive(30)
    yield "jpeg of 20000 scans", lambda: progressive(20_000)
    yield "jpeg 65535 pixels a side", _jpeg_of_size(65535, 65535)
    jpeg = saved("JPEG")
    yield "jpeg of 2 MB EXIF", jpeg[:2] + 30 * (b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)) + jpeg[2:]
    profile = b"\xff\xe2\xff\xffICC_PROFILE\0\1\1" + bytes(65519)
    yield "jpeg of 64 KB segments", jpeg[:2] + 100 * profile + jpeg[2:]
    side = 4 * b"\xff"
    yield (
        "gif 65535 pixels a side",
        b"GIF89a" + side + b"\x80\0\0" + bytes(6) + b",\0\0\0\0" + side + b"\0\x08\x01\0\0;",
    )
    yield "gif of 3000 frames", saved("GIF", save_all=True, append_images=_frames(2, 3000))
    frame = b"\x2c\0\0\0\0"
    yield "gif of 2 MB comments", saved("GIF").replace(frame, 8000 * (b"!\xfe\xff" + b"a" * 255 + b"\0") + frame, 1)
    yield "bmp 2^31-1 pixels a side", bmp(2**31 - 1, 2**31 - 1, 24, 0, b"")
    yield "bmp of negative size", bmp(-32, -32, 24, 0, bytes(3072))
    yield "bmp rle of single pixels", lambda: bmp(1000, 1000, 8, 1, 1_000_000 * b"\1\0" + b"\0\1")
    yield "bmp rle of 20 million pixels", lambda: bmp(5000, 4000, 8, 1, 20_000_000 * b"\1\0" + b"\0\1")
    yield "bmp rle of 64 MP", bmp(8000, 8000, 8, 1, b"\0\1")
    yield "ppm in digits", lambda: b"P3 1000 1000 255 " + 3_000_000 * b"0 "
    yield "ppm of 120 million digits", lambda: b"P3 8000 5000 255 " + 120_000_000 * b"0 "
    yield "ppm of one token", lambda: b"P3 8 8 255 " + 50_000_000 * b"9"
    yield "ppm of comments", lambda: b"P6 " + 2_000_000 * b"#\n"
    yield "ppm 10^9 pixels a side", b"P6 1000000000 1000000000 255 "
    if "webp" not in MISSING:
        yield "webp 64 MP", lambda: saved("WEBP", Image.new("RGBA", (8000, 8000)), method=0, lossless=True)
        yield "webp 16384 pixels a side", _webp_canvas(1 << 14)
        yield "webp 2^24 pixels a side", _webp_canvas(1 << 24)
        yield "webp of 300 frames", saved("WEBP", save_all=True, append_images=_frames(32, 300))
    if "avif" not in MISSING:
        yield "avif 2^31 pixels a side", _avif_of_size(2**31 - 1)


def _frames(side: int, count: int) -> list[Image.Image]:
    return [Image.new("L", (side, side), i % 256) for i in range(count)]


def _jpeg_of_size(width: int, height: int) -> bytes:
    whole = bytearray(saved("JPEG"))
    at = whole.index(b"\xff\xc0")
    whole[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def _webp_canvas(side: int) -> bytes:
    """An animated WebP with a large canvas and a tiny frame."""
    whole = bytearray(saved("WEBP", save_all=True, append_images=[Image.new("L", (32, 32))]))
    at = whole.index(b"VP8X") + 12
    whole[at : at + 6] = 2 * struct.pack("<I", side - 1)[:3]
    return bytes(whole)


def _avif_of_size(side: int) -> bytes:
    whole = bytearray(saved("AVIF"))
    at = whole.index(b"ispe") + 8
    whole[at : at + 8] = struct.pack(">II", side, side)
    return bytes(whole)


def _lies(canary: Path) -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    """Files of other formats, or of none, under a picture's name."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n"
    touch = f"(%pipe%touch {canary}) (w) file closefile ({canary}) (w) file closefile showpage\n"
    yield "postscript", script + touch.encode()
    dos = struct.pack("<4sIIIIIIH", b"\xc5\xd0\xd3\xc6", 32, len(script), 0, 0, 0, 0, 0xFFFF).ljust(32, b"\0")
    yield "postscript with a preview", dos + script
    yield "metafile", b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhHIHHH", 0, 0, 9, 9, 72, 0, 0, 1, 9) + bytes(100)
    yield "enhanced metafile", b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(100)
    yield "svg", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hosts">]><svg>&b;</svg>'
    yield "pdf", b"%PDF-1.4\n1 0 obj <</OpenAction <</S /Launch /F (touch)>>>> endobj\n"
    for fmt in ("TGA", "PCX", "SGI", "ICO", "ICNS", "IM", "JPEG2000", "DDS", "MSP", "XBM", "SPIDER"):
        if fmt in Image.SAVE:
            mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(fmt, "RGB")
            yield fmt.lower(), saved(fmt, Image.new(mode, (32, 32)))
    yield "icns of zeros", b"icns" + struct.pack(">I4sI", 10**6, b"ic10", 999_992) + bytes(999_992)
    yield "psd 30000 pixels a side", b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 30000, 30000, 8, 3) + bytes(100)
    yield "xpm of many colours", b'/* XPM */\nstatic char *a[] = {\n"10000 10000 4000000 4",\n'
    yield "fits", b"SIMPLE  =                    T".ljust(80) + b"BITPIX  = 8".ljust(80) + b"END".ljust(2720)
    yield "a pickle", b"cos\nsystem\n(S'touch %s'\ntR." % os.fsencode(canary)
    yield "text", b"no picture\n"
    yield "control characters", b"\x89PNG\r\n\x1a\n\x1b[31mred\x07" * 50
    yield "nothing", b""
    yield "zeros", bytes(100_000)
    yield "noise", np.random.default_rng(1).bytes(100_000)


def _truncated() -> Iterator[tuple[str, bytes]]:
    """Whole files cut after a third of their bytes, and after their head."""
    noise = Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for fmt in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM"):
        if fmt in Image.SAVE and fmt.lower() not in MISSING:
            whole = saved(fmt, noise)
            yield f"{fmt.lower()} cut at a third", whole[: len(whole) // 3]
            yield f"{fmt.lower()} cut in its head", whole[:13]


def _no_files(folder: Path) -> Iterator[Case]:
    """What is no file at all."""
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "dangling.png").symlink_to("nowhere")
    for name in ("pipe", "folder", "loop", "zero", "dangling"):
        yield f"{name} as a picture", look, folder / f"{name}.png"
        yield f"{name} as a mask", look_as_mask, folder / f"{name}.png"


def _domains(folder: Path, names: Sequence[str]) -> Iterator[Case]:
    """Folders for --real, with a hostile picture and a link to the folder itself."""
    for name in names:
        domain = folder / f"domain of {name}"
        domain.mkdir()
        (domain / "a.png").write_bytes(small_png())
        (domain / "b.png").symlink_to(f"../{name}.png")
        (domain / "again").symlink_to(".")
        yield f"{name} in a domain", look_at_domain, domain
