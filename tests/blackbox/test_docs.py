"""The Markdown files: every relative link and anchor works, and prose has one sentence per line."""

import re
import subprocess
from xml.etree import ElementTree

import pytest

from longline_server import PATIENCE_S, REPOSITORY

LIST = ["git", "ls-files", "*.md"]
FILES = subprocess.check_output(LIST, cwd=REPOSITORY, text=True).split()

FENCE = re.compile(r"^ *```.*?^ *```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A sentence ends, and the next one begins on the same line.
SENTENCES = re.compile(r"[a-z0-9`)\"*][.!?][)\"*]* +[\"(*`\[]*(?:[A-Z]|longline)")
# Where a line of prose may end although the paragraph goes on.
ENDS = re.compile(r"[.!?:][)\"*]*$")


def prose(path):
    """The text of a file. Its blocks of code and its comments are emptied, so that lines keep their numbers."""
    text = FENCE.sub(lambda block: "\n" * block[0].count("\n"), (REPOSITORY / path).read_text("utf-8"))
    return re.sub(r"<!-- .*? -->", "", text)


def anchor(heading):
    """The anchor that GitHub gives a heading."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return words.replace(" ", "-")


def anchors(path):
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", prose(path), re.M)}


def broken_links(path):
    for link in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, fragment = link.partition("#")
        file = (REPOSITORY / path).parent / target if target else REPOSITORY / path
        if not file.exists() or (fragment and fragment not in anchors(file)):
            yield link


def broken_lines(text):
    """The lines with more than one sentence, or that end within one; not in tables and code."""
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"^ *([-*]|\d+\.) ", "", line)
        is_item = words != line
        if line.lstrip().startswith(("|", "#")) or (line.startswith("    ") and not is_item):
            words = ""
        words = re.sub(r"`[^`]*`", "`X`", words)
        if SENTENCES.search(words):
            yield number
        if before and words and not is_item and not ENDS.search(before):
            yield number - 1
        before = words


@pytest.mark.parametrize("path", [*FILES, "llms.txt"])
def test_every_link_of_a_document_works(path):
    assert not list(broken_links(path))


def missing_places(text):
    """What a page names as `function()` in `file.c`, or as `room/file.c`, that is not there."""
    for function, file in re.findall(r"`(\w+)\(\)` in `([\w/]+\.c)`", text):
        source = REPOSITORY / "src" / file
        if not source.exists() or not re.search(rf"\b{function}\(", source.read_text("utf-8")):
            yield function
    for file in re.findall(r"`((?:base|http|inbox|api|sqlite|redis|cli|process)/\w+\.[ch])`", text):
        if not (REPOSITORY / "src" / file).exists():
            yield file


@pytest.mark.parametrize("path", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_what_a_page_says_of_the_sources_is_there(path):
    assert not list(missing_places(prose(path)))


def test_a_place_that_is_not_there_is_noticed():
    text = "`open_store()` in `serve.c`, `open_store()` in `main.c`, `cli/new.c`, `cli/old.c`"
    assert list(missing_places(text)) == ["open_store", "cli/old.c"]


def test_every_page_is_in_the_list_of_pages():
    pages = {path for path in FILES if re.fullmatch(r"docs/[\w-]+\.md", path)} - {"docs/README.md"}
    told = {"docs/" + link for link in LINK.findall(prose("docs/README.md"))}
    assert pages - told == set()


def test_every_long_run_has_its_day_and_a_target():
    head, _, *rows = re.findall(r"^\|.*", (REPOSITORY / "docs/torture.md").read_text("utf-8").split("\n\n")[2], re.M)
    usage = subprocess.check_output([REPOSITORY / "script/torture", "--help"], text=True)
    assert head == "| what | target | day | how much | result |" and len(rows) > 40
    for row in rows:
        what, target, day, *_ = row.removeprefix("| ").split(" | ")
        assert re.fullmatch(r"`\w+`", target) and re.search(rf"^  {target[1:-1]} ", usage, re.M), what
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", day), what


def test_llms_txt_has_the_form_that_its_readers_expect():
    """A name, a summary, what matters, then lists of links: https://llmstxt.org."""
    name, summary, *rest = (REPOSITORY / "llms.txt").read_text("utf-8").split("\n\n")
    assert re.fullmatch(r"# \S+", name) and summary.startswith("> ")
    sections = [part for part in rest if part.startswith("## ")]
    lists = rest[rest.index(sections[0]) + 1 :: 2]
    assert len(sections) == len(lists) == 3
    for line in "\n".join(lists).strip().splitlines():
        assert re.fullmatch(r"- \[[^]]+\]\([^)]+\): .+", line)


@pytest.mark.parametrize("picture", sorted((REPOSITORY / "docs/pictures").glob("*.svg")), ids=lambda picture: picture.name)
def test_a_picture_has_words_and_two_themes(picture):
    text = picture.read_text("utf-8")
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img" and len(root.get("aria-label")) > 40
    assert "prefers-color-scheme: dark" in text
    # What it needs is in it: pages show it as a picture, which may fetch nothing.
    assert not re.search(r"url\((?!#)|href=|<script", text)


def test_the_recording_is_what_a_server_answers(tmp_path):
    picture = tmp_path / "picture.svg"
    subprocess.run([REPOSITORY / "script/recording", picture], check=True, timeout=6 * PATIENCE_S)
    assert picture.read_text("utf-8") == (REPOSITORY / "docs/pictures/push-and-poll.svg").read_text("utf-8")


@pytest.mark.parametrize("path", FILES)
def test_a_merge_has_left_no_marks(path):
    assert not re.search(r"^(<{7}|={7}$|>{7})", (REPOSITORY / path).read_text("utf-8"), re.M)


@pytest.mark.parametrize("path", FILES)
def test_a_document_has_one_sentence_per_line(path):
    assert not list(broken_lines(prose(path)))


def test_a_line_with_two_sentences_is_noticed():
    text = "One.\n1. It is 2.5 MiB of `Ab. C`.\n| A cell. Two. |\n    code. Code\n- One (so). *Two*.\n"
    assert list(broken_lines(text)) == [5]


def test_a_sentence_on_two_lines_is_noticed():
    text = "# Heading\n- An item\n- and another:\n  it is whole.\n\nA sentence\nthat goes on.\n"
    assert list(broken_lines(text)) == [6]
