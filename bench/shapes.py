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
    "digits": (1797, 1, 8, 8),
}

GROUPS = 32
"""Groups of every group norm row: the number of Wu and He 2018."""
