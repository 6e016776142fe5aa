"""What the documentation shows is run, compiled, followed or looked up, so that it cannot grow old unnoticed.

A ```python block is a whole program: it runs in an empty folder, and a ```text block right behind it is its output.
One behind the line ``<!-- fragment -->`` is a piece of a program and only has to compile; one behind ``<!-- pytest -->``
is a file of tests that pass.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from autolink import limits
from autolink.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>fragment|pytest) -->\n)?```python\n(?P<code>.*?)```\n(\n```text\n(?P<output>.*?)```\n)?",
    re.DOTALL,
)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:\S*/)?autolink (?P<words>.*)")
NAMED = re.compile(r"`autolink ((?:[a-z]+ ?)+)`")
OPERATORS = {"|", ">", "<", ">>", "&&", "&", ";", "2>"}
ROW = re.compile(
    r"^\| `(?P<name>[A-Z_]+)` \| (?P<number>[\d,.]+)(?: (?P<unit>KiB|MiB|h|days|min|s))? ", re.MULTILINE
)
UNITS = {None: 1, "KiB": 1024, "MiB": 1024**2, "s": 1, "min": 60, "h": 3600, "days": 1}


def blocks() -> Iterator[object]:
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text()):
            line = page.read_text().count("\n", 0, found.start("code"))
            yield pytest.param(found, id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("block", list(blocks()))
def test_a_python_block_runs_and_prints_what_is_shown(block, tmp_path):
    code = block["code"]
    if block["mark"] == "fragment":
        compile(code, "fragment", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
        return
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AUTOLINK_", "COV"))
    } | {"HOME": str(tmp_path)}  # fmt: skip
    program = ["-"]
    if block["mark"] == "pytest":
        program = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_block.py"]
        (tmp_path / "test_block.py").write_text(code)
    ran = subprocess.run(
        [sys.executable, "-W", "error", *program],
        input=code, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if block["output"] is not None:
        assert ran.stdout == block["output"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading_that_are_there(page):
    if not (ROOT / "CONTRIBUTING.md").exists():
        pytest.skip("LINKS NOT CHECKED: this is no whole checkout")
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if heading:
            assert heading in headings(target), link


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are usually made."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def command_lines() -> Iterator[object]:
    for page in PAGES:
        for script in SHELL.findall(page.read_text()):
            for line in script.replace("\\\n", " ").splitlines():
                for part in re.split(r"\s(?:\||&&|;)\s", line):
                    words = shlex.split(part, comments=True)
                    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                        words = words[1:]
                    if words and words[0].rpartition("/")[2] == "autolink":
                        yield pytest.param(words[1:], id=f"{page.relative_to(ROOT)}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(command_lines()))
def test_a_command_line_uses_commands_and_options_that_exist(words):
    words = words[: next((place for place, word in enumerate(words) if word in OPERATORS), len(words))]
    command, rest = find(words)
    options = {name: each for each in command.params for name in each.opts if isinstance(each, click.Option)}
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    given = 0
    while rest:
        word, *rest = rest
        if not word.startswith("-") or word == "-":
            given += 1
            continue
        name, equals, _ = word.partition("=")
        if name in command.context_settings.get("help_option_names", ["-h", "--help"]):
            continue
        assert name in options, f"{name} is no option of {command.name}"
        if not options[name].is_flag and not options[name].count and not equals:
            rest = rest[options[name].nargs :]
    least = sum(each.required for each in arguments)
    most = sum(each.nargs if each.nargs > 0 else 1000 for each in arguments)
    assert least <= given <= most, f"{command.name} takes {least} to {most} arguments"


@pytest.mark.parametrize(
    "words", sorted({words for page in PAGES for words in NAMED.findall(page.read_text())}), ids=str
)  # fmt: skip
def test_a_command_named_in_the_text_exists(words):
    find(words.split())


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words name, and the rest of them."""
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        if rest[0].startswith("-"):  # the group's own options, all of them flags
            assert any(rest[0] in each.opts for each in command.params), rest[0]
            rest.pop(0)
            continue
        found = command.get_command(click.Context(command), rest.pop(0))
        assert found is not None, f"no command {' '.join(words)}"
        command = found
    return command, rest


def test_the_quick_start_has_exactly_two_shell_blocks():
    section = (ROOT / "README.md").read_text().partition("## Quick start\n")[2].partition("\n## ")[0]
    assert len(SHELL.findall(section)) == 2
    assert section.count("```") == 4


def test_nobody_is_told_to_install_somebody_elses_package():
    for page in PAGES:
        assert not re.search(r"pip install (-\S+ )*[\"']?autolink\b(?!-agents)", page.read_text()), page


def test_the_page_of_limits_says_what_the_code_says():
    rows = list(ROW.finditer((ROOT / "docs" / "explanation" / "limits.md").read_text()))
    assert len(rows) > 20
    for row in rows:
        value = float(row["number"].replace(",", "")) * UNITS[row["unit"]]
        assert getattr(limits, row["name"]) == value, row["name"]
