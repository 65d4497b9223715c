"""Draws docs/images/method.png: how one adapted Linear treats image, audio, instruction and answer tokens.

python scripts/draw_method.py docs/images/method.png
"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

COLORS = {"visual": "#3b78c4", "audio": "#d9822b", "text": "#4f9d57", "shared": "#6b5b95", "base": "#8a8a8a"}
TOKENS = [
    ("visual", "image"),
    ("visual", "image"),
    ("audio", "audio"),
    ("text", "how"),
    ("text", "many"),
    ("text", "notes"),
    ("answer", "answer"),
]
WIDTH = 1.15


def box(ax, x, y, width, height, label, color, *, filled=True, size=10):
    face = color if filled else "white"
    style = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.08", fc=face, ec=color, lw=1.6
    )
    ax.add_patch(style)
    ink = "white" if filled else color
    ax.text(x + width / 2, y + height / 2, label, ha="center", va="center", color=ink, fontsize=size)


def arrow(ax, start, end, color, *, curve=0.0, width=1.3):
    style = f"arc3,rad={curve}"
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=color, lw=width, connectionstyle=style)
    )


def draw(path: str) -> None:
    figure, ax = plt.subplots(figsize=(10.4, 5.6), dpi=150)
    centers = [0.8 + index * 1.35 for index in range(len(TOKENS))]
    for center, (kind, word) in zip(centers, TOKENS, strict=True):
        modality = "text" if kind == "answer" else kind
        color = COLORS[modality]
        box(ax, center - WIDTH / 2, 0.1, WIDTH, 0.5, word, color, size=11)
        arrow(ax, (center, 0.64), (center, 1.08), color)
        box(ax, center - WIDTH / 2, 1.12, WIDTH, 0.5, f"A {modality}", color, filled=False)
        arrow(ax, (center, 1.66), (center, 2.1), color)
        box(ax, center - 0.3, 2.14, 0.6, 0.42, "z", color)
        arrow(ax, (center, 2.6), (center, 3.86), color)
    for query in range(3):
        for key in range(3, 6):
            arrow(ax, (centers[key], 2.6), (centers[query] + 0.34, 2.44), COLORS["text"], curve=0.2, width=0.8)
    left, right = centers[0] - WIDTH / 2, centers[-1] + WIDTH / 2
    box(ax, left, 3.9, right - left, 0.5, "B, one for all", COLORS["shared"], size=12)
    notes = {
        0.35: "tokens of one turn",
        1.37: "each modality its own A",
        2.35: "rank r: media attend to\nthe instruction of their turn;\nthe answer is never a key",
        4.15: "added to the frozen W x",
    }
    for height, note in notes.items():
        ax.text(right + 0.2, height, note, ha="left", va="center", fontsize=10, color="#333333")
    ax.text(left, 4.75, "y  =  W x  +  s · B ( z + λ · attention )", fontsize=14, color="#222222")
    ax.set_xlim(left - 0.15, right + 3.1)
    ax.set_ylim(-0.05, 5.1)
    ax.axis("off")
    figure.savefig(path, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    draw(sys.argv[1])
