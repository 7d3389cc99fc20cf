"""Report of `kvcache/sink-pretraining`: perplexity by training and by first tokens kept."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_kvcache.sink_table_options import KEPT

if TYPE_CHECKING:
    from tian.runs.rundir import Run

NAMES = {
    "vanilla": "vanilla",
    "softmax1": "zero sink (SoftMax1)",
    "token": "dedicated first token",
    "scalar": "trained scalar per head",
}


def sections(run: Run) -> list[Section]:
    """First screen (sentence, plot), and the table."""
    data = run.read_json("sinks.json")
    if data is None:
        return []
    source = (
        f"Trained on {data['text']}, {data['steps']:,} steps of {data['training_tokens'] // data['steps']:,} tokens, "
        f"samples of {data['context']}; same data, order and seed. Read: {data['held_out']}, {data['streams']} streams of "
        f"{data['tokens']} tokens, compared from token {data['start']:,} on."
    )
    text = f'{words(data)}<p class="note">{escape(source)}</p>'
    return [
        Section(headline(data), f"{text}<!--plot-->{plot(data, run)}"),
        Section("Training and first tokens kept", cells(data)),
    ]


def headline(data: dict[str, Any]) -> str:
    """The studied training with one first token kept, against vanilla at its best."""
    one = data["columns"][1]
    ours = data["rows"][data["studied"]]["cells"][one][0]
    text = f"{NAMES[data['studied']]}: perplexity {ours:.1f} with {one} tokens kept"
    best = data["best of vanilla"]
    if best and data["studied"] != "vanilla":
        text += f"; vanilla at best {data['rows']['vanilla']['cells'][best][0]:.1f}, with {best}"
    return text


def words(data: dict[str, Any]) -> str:
    """What losing the first token costs each training; stated whichever way it went."""
    none, one, *_, four = data["columns"]
    lines = []
    for name, row in data["rows"].items():
        cell = {c: v[0] for c, v in row["cells"].items()}
        lines.append(
            f"{NAMES[name]}: without the first token {cell[none] / cell[four]:.2f} times the perplexity of four kept, "
            f"with one {cell[one] / cell[four]:.3f} times."
        )
    return "".join(f"<p>{escape(x)}</p>" for x in lines)


def plot(data: dict[str, Any], run: Run) -> str:
    """Perplexity over first tokens kept, one line a training, with intervals over streams."""
    figure, axes = new_axes(
        title="Streaming perplexity", x=f"first tokens kept, of {_size(data)} in all", y="perplexity (log scale)"
    )
    places = range(len(KEPT))
    for i, (name, row) in enumerate(data["rows"].items()):
        value, low, high = zip(*(row["cells"][c] for c in data["columns"]), strict=True)
        around = ([v - x for v, x in zip(value, low, strict=True)], [x - v for v, x in zip(value, high, strict=True)])
        shifted = [p + 0.05 * (i - 1.5) for p in places]
        axes.errorbar(
            shifted, value, yerr=around, color=COLOURS[i], marker="o", markersize=4, capsize=2, label=NAMES[name]
        )
    axes.set_xticks(list(places), [str(k) for k in KEPT])
    axes.set_yscale("log")
    axes.legend(fontsize=9, frameon=False)
    return to_svg(figure, alt=headline(data), path=run.path / "plots" / "sinks.svg")


def cells(data: dict[str, Any]) -> str:
    """The table in the shape of the paper's table 3, with what explains it."""
    head = ["training", *data["columns"], "held out, no cache", "attention on the first token: lowest layer / above"]
    rows = []
    for name, row in data["rows"].items():
        numbers = [f"{v:.2f} [{low:.1f}, {high:.1f}]" for v, low, high in (row["cells"][c] for c in data["columns"])]
        mass = f"{row['mass']['lowest']:.3f} / {row['mass']['above']:.3f}"
        rows.append([NAMES[name], *numbers, f"{row['held_out']:.2f}", mass])
    note = (
        '<p class="note">Perplexity [95 %] over streams; columns: first tokens kept + recent ones. "Held out, no cache": '
        "windows of the training length. Above the lowest layer the largest value counts; an attention sink takes 0.3 "
        "or more there.</p>"
    )
    return table(head, rows) + note


def _size(data: dict[str, Any]) -> int:
    return sum(int(x) for x in data["columns"][0].split("+"))
