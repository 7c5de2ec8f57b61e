"""Named real problems, shared with the tests: a name says where a shape comes from, a tuple does not.

Four-dimensional shapes are written N C H W whatever the layout of a row is; two-dimensional ones are
rows x features; one-dimensional ones are just numbers. Nothing is imported here, so that a test can use the table for free.
"""

from __future__ import annotations

SHAPES: dict[str, tuple[int, ...]] = {
    # ResNet-50, batch of 32
    "resnet50/bn1": (32, 64, 112, 112),
    "resnet50/stage2": (32, 64, 56, 56),
    "resnet50/stage2-wide": (32, 256, 56, 56),
    "resnet50/stage3-wide": (32, 1024, 14, 14),
    "resnet50/stage4": (32, 512, 7, 7),
    "resnet50/stage4-wide": (32, 2048, 7, 7),
    # MobileNet v2, batch of 32
    "mobilenet2/first": (32, 32, 112, 112),
    "mobilenet2/expand": (32, 144, 56, 56),
    "mobilenet2/last": (32, 1280, 7, 7),
    # transformers: tokens x features
    "gpt2-medium/tokens": (4096, 1024),
    "gpt2/tokens": (16384, 768),
    "bert-large/tokens": (512, 1024),
    "long-rows": (1024, 4096),
    "llama/tokens": (16384, 4096),
    "short-rows": (65536, 256),
    # queries of 4096 tokens, each of 32 heads by itself
    "attention/heads": (131_072, 128),
    # batches of a hidden layer; and of feature maps, 64 channels of 64 x 64, each sample a row
    "mlp/hidden": (4096, 4096),
    "mlp/batch": (128, 1024),
    "mlp/one": (1, 4096),
    "convnet/maps": (64, 262_144),
    # the last planes of a small batch
    "convnet/last": (8, 512, 7, 7),
    # tables: samples x features
    "tabular/tall": (1_000_000, 50),
    "tabular/wide": (65536, 256),
    "tabular/genes": (100_000, 1000),
    # a table of words: 10 of 1000 columns are not zero in every row
    "tabular/sparse": (1_000_000, 1000),
    # statistics of plain arrays
    "square": (10_000, 10_000),
    # U-Net and detection: group norm, instance norm
    "unet/28": (8, 128, 28, 28),
    "style/64": (8, 64, 128, 128),
    # where a call is mostly Python
    "tiny/planes": (8, 16, 4, 4),
    "tiny/rows": (32, 128),
    "tiny/hundred": (100,),
    # for the accuracy table: small enough for six offsets and every library
    "accuracy/planes": (16, 32, 28, 28),
    "accuracy/rows": (1024, 768),
    "accuracy/square": (2000, 500),
    # real images; scikit-learn's, tiled to a batch of 8 photographs, 64 parts of them or all 1797 digits
    "photos": (8, 3, 427, 640),
    "imagenet/64": (64, 3, 224, 224),
    "imagenet/1": (1, 3, 224, 224),
    "digits": (1797, 1, 8, 8),
    # what no vector, tile or number of threads divides
    "odd/planes-7x7": (32, 50, 7, 7),
    "odd/few-samples": (2, 512, 7, 7),
    "odd/three-channels": (16, 3, 101, 103),
    "odd/one-channel": (16, 1, 128, 128),
    "odd/points": (512, 256, 1, 1),
    "odd/primes": (7, 31, 37, 41),
    "odd/rows-of-1": (10007, 1),
    "odd/rows-of-3": (30011, 3),
    "odd/rows-of-50": (20011, 50),
    "odd/rows-of-769": (1009, 769),
    "odd/few-rows": (4, 16411),
}

SWEEP: dict[str, dict[str, tuple[int, ...]]] = {
    "planes": {
        "1KB": (2, 8, 4, 4),
        "4KB": (4, 16, 4, 4),
        "16KB": (4, 16, 8, 8),
        "64KB": (8, 32, 8, 8),
        "256KB": (8, 32, 16, 16),
        "1MB": (16, 64, 16, 16),
        "4MB": (16, 64, 32, 32),
        "16MB": (64, 64, 32, 32),
        "64MB": (64, 64, 64, 64),
        "256MB": (256, 64, 64, 64),
        "1GB": (1024, 64, 64, 64),
    },
    "rows": {
        "1KB": (4, 64),
        "4KB": (8, 128),
        "16KB": (16, 256),
        "64KB": (32, 512),
        "256KB": (64, 1024),
        "1MB": (256, 1024),
        "4MB": (1024, 1024),
        "16MB": (4096, 1024),
        "64MB": (16384, 1024),
        "256MB": (65536, 1024),
        "1GB": (262144, 1024),
    },
}
"""Of float32 arrays from 1 KB to 1 GB."""
SHAPES |= {f"sweep/{kind}/{size}": dims for kind, sizes in SWEEP.items() for size, dims in sizes.items()}

GROUPS = 32
"""Groups of every group norm row: the number of Wu and He 2018."""
