"""Makes models/bible-text from Debian's packages diatheke and sword-text-web.

    python bench/model/make_text.py FOLDER

The World English Bible (public domain) without verse numbers, headings and the psalms' titles: a
chapter after the other with an empty line between, every 25th from the 13th on in evaluation.txt,
the others in training.txt.
"""

import collections
import os
import re
import subprocess
import sys

MODULE = "engWEB2015eb"
TITLE = re.compile(r"Psalm|psalm|Chief Musician|By David|by David|Solomon\.|meditation|Song of Ascents|contemplation|poem")


def verses_of(key):
    command = ["diatheke", "-b", MODULE, "-o", "n", "-f", "plain", "-k", key]
    raw = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    raw = re.sub(r" ?<[HG]\d+>(?=[\w“‘(])", " ", raw)  # dictionary numbers
    return re.sub(r" ?<[HG]\d+>", "", raw).replace(f"({MODULE})", "").split("The following words used in the World")[0]


def chapters():
    names = re.findall(r"^ *((?:I+ )?[A-Z][A-Za-z]+(?: [A-Za-z]+)*) (\d+):\d+: ?", verses_of("Gen-Rev"), re.M)
    return list(collections.OrderedDict.fromkeys((book, int(chapter)) for book, chapter in names))


def chapter_verses(book, chapter):
    raw = verses_of(f"{book} {chapter}:1-200")
    marks = list(re.finditer(r"(?:^|(?<=\s))[1-4I]*\s?[A-Z][A-Za-z ]+ (\d+):(\d+): ?", raw))
    verses = collections.OrderedDict()
    for mark, after in zip(marks, marks[1:] + [None]):
        if int(mark[1]) == chapter:
            verses.setdefault(int(mark[2]), raw[mark.end(): after.start() if after else len(raw)])
    return list(verses.values())


def last_line(verse):
    return verse.strip().split("\n")[-1].strip()


def joined(book, verses, titles):
    text = ""
    for verse in verses:
        if book == "Psalms":
            verse = verse.split("\n\n")[0] + "\n\n"
        whole = verse.rstrip()
        title = next((t for t in titles if whole.endswith(t)), None)
        if title:
            verse = whole[:-len(title)].rstrip() + "\n"
        end = "\n\n" if re.search(r"\n\s*\n\s*$", verse) else "\n" if re.search(r"[ \n]\n$", verse) else " "
        lines = [re.sub(r"\s+", " ", line).strip() for line in verse.strip().split("\n")]
        text += "\n".join(line for line in lines if line and line not in titles) + end
    text = re.sub(r"Esther \(Greek\) \d+:\d+: ", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def main():
    books = [(book, chapter_verses(book, chapter)) for book, chapter in chapters()]
    lines = collections.Counter(last_line(v) for _, verses in books for v in verses if "\n" in v.strip())
    titles = sorted(line for line, count in lines.items() if count >= 2 and TITLE.search(line))
    texts = [joined(book, verses, titles) for book, verses in books]
    for name, wanted in (("training.txt", False), ("evaluation.txt", True)):
        chosen = [text for i, text in enumerate(texts) if (i % 25 == 12) == wanted]
        with open(os.path.join(sys.argv[1], name), "w", encoding="utf-8") as file:
            file.write("\n\n".join(chosen) + "\n")


if __name__ == "__main__":
    main()
