"""docs/interop.md: the words are here, the figures come from the rows of a run."""

HEAD = """# Who loads what

Written by `scripts/test-peers --document docs/interop.md`, which makes every layout, loads each with the program that it is
for, and compares logits. Nothing here is typed in: a row is what that run measured.

* *reads*: llmpress writes the layout ([artifacts.md](artifacts.md), [gguf.md](gguf.md)), the peer loads it and computes logits.
  *writes*: the peer makes the file from the same checkpoint, llmpress loads it.
* A figure is max |difference| / max |logit| between the peer's logits and those of `llmpress logits`, over 64 tokens.
  The models are the shipped `tinystories-3.7m` (a Llama) and random ones of two other families, all in float32;
  for GGUF random ones of each family that it has.
* *moved* is what the layout itself did: the largest such distance between its logits and those of the plain model. A row counts only
  if the loader is nearer to the layout than the plain model is, so that a layout that was not applied is seen.
* The bound is 1e-4 where both compute in float32: they take sums in different orders. Another bound has its reason below the table.
* *refused*: the loader raises, and llmpress said so when it wrote the layout.
"""

TITLES = {"reads": "{} reads what llmpress writes", "writes": "llmpress reads what {} writes"}


def figure(row):
    if row is None:
        return ""
    if row["refused"] and row["good"]:
        return "refused"
    text = "no" if row["difference"] is None else f"{row['difference']:.0e}".replace("e-0", "e-")
    return text if row["good"] else f"**{text}**"


def small(value):
    return f"{value:.0e}".replace("e-0", "e-").replace("e+00", "")


def noted(row, reasons):
    return f" ({reasons.setdefault(row['reason'], len(reasons) + 1)})" if row["reason"] else ""


MANY = 5  # models of a layout, which are listed down the page


def table(rows, reasons):
    layouts = {}
    for row in rows:
        layouts.setdefault(row["layout"], {})[row["model"]] = row
    few = {layout: by_model for layout, by_model in layouts.items() if len(by_model) < MANY}
    if few:
        yield from across(few, reasons)
    for layout, by_model in layouts.items():
        if layout not in few:
            yield from ("", f"| {layout} | | bound |", "|---|---|---|")
            yield from (f"| {model} | {figure(row)} | {small(row['bound'])}{noted(row, reasons)} |"
                        for model, row in by_model.items())


def across(layouts, reasons):
    models = list(dict.fromkeys(model for by_model in layouts.values() for model in by_model))
    yield f"| layout | {' | '.join(models)} | moved | bound |"
    yield "|" + "---|" * (len(models) + 3)
    for layout, by_model in layouts.items():
        row = next(iter(by_model.values()))
        moved = [r["moved"] for r in by_model.values() if r["moved"] is not None]
        cells = [layout, *(figure(by_model.get(model)) for model in models), small(max(moved)) if moved else "",
                 ("" if row["refused"] else small(row["bound"])) + noted(row, reasons)]
        yield "| " + " | ".join(cells) + " |"


def text_of(rows, skipped):
    yield HEAD
    reasons, groups = {}, {}
    for row in rows:
        groups.setdefault((row["direction"], row["peer"]), []).append(row)
    for (direction, peer), group in groups.items():
        yield "## " + TITLES[direction].format(peer) + "\n"
        yield from table(group, reasons)
        yield ""
    if reasons:
        yield "## Reasons\n"
        yield from (f"{number}. {reason}" for reason, number in reasons.items())
    for module, reason in skipped.items():
        yield f"\nNot run: {module}: {reason}"


def write(path, rows, skipped):
    with open(path, "w") as file:
        file.write("\n".join(text_of(rows, skipped)).rstrip() + "\n")
