#!/usr/bin/env python3
"""CSV against Python's strict reader: no row is taken that it refuses or reads otherwise.

    python3 bench/csv_strict.py --files 200000 --seed 1      # builds and drives the example `csv_rows` of `connect`
    python3 bench/csv_strict.py --kinds                      # which kinds of line each reader refuses; needs `duckdb`

Each file is small and hostile: quotes, line ends, marks and separators where they should and should not be. Counted:

* `refused_by_python`, `read_otherwise`: a row was taken from line N, and Python's reader (`strict=True`), begun at that
  line, refuses it or reads other fields. Must be 0.
* `phantom`: a row was taken from inside a record that Python reads as one. Must be 0.
* `lost`: Python reads a record, and neither a row nor an entry of what was set aside stands for it. Must be 0.
* `neighbours`: one line of a file without quotes was spoilt, and another line is not a row. Must be 0.

Where Python takes what is set aside here, that is counted by reason under `stricter`. Settings that say otherwise
(`dialect: excel`, `dialect: backslash`, `delimiter`, `quote`) are drawn too, and told to both readers.

With `--pipe`, cases go to standard output and answers come from standard input, a line of JSON each: so the tests of
`connect` are the reader. The figures then go to standard error.
"""

import argparse
import csv
import io
import json
import random
import re
import subprocess
import sys

FIGURES = ["refused_by_python", "read_otherwise", "phantom", "lost", "neighbours"]
TOKENS = ['"', '"', '"', '""', ",", ",", "\n", "\n", "\r\n", "\r", "\\", "\\\"", "'", " ", ";", "\t", "\ufeff", "\0", "é", "a", "b", "12", "x y"]
WORDS = ["", "a", "b1", "x y", "é", "0012", "O'Neil", "2\u00a0m"]


class Case:
    """A file, how it is written, and the lines that must be rows whatever stands beside them."""

    def __init__(self, text, settings, clean_lines=()):
        self.text, self.settings, self.clean_lines = text, settings, clean_lines

    def request(self):
        return json.dumps({"hex": self.text.encode().hex(), "settings": self.settings})

    def reader(self, lines):
        backslash = self.settings.get("dialect") == "backslash"
        return csv.reader(
            lines,
            strict=True,
            delimiter=self.settings.get("delimiter", ","),
            quotechar=self.settings.get("quote", '"'),
            doublequote=not backslash,
            escapechar="\\" if backslash else None,
        )


def draw(random):
    settings = {}
    kind = random.random()
    if kind < 0.15:
        settings["dialect"] = "excel"
    elif kind < 0.25:
        settings["dialect"] = "backslash"
    if random.random() < 0.1:
        settings["delimiter"] = random.choice([";", "\t"])
    if random.random() < 0.05:
        settings["quote"] = "'"
    return spoilt_line(random, settings) if random.random() < 0.25 else hostile_file(random, settings)


def hostile_file(random, settings):
    delimiter, quote = settings.get("delimiter", ","), settings.get("quote", '"')
    columns = random.randint(1, 4)
    line_end = random.choice(["\n", "\n", "\n", "\r\n", "\r"])
    records = [[f"c{column}" for column in range(columns)]]
    records += [[word(random) for _ in range(columns)] for _ in range(random.randint(0, 7))]
    text = "".join(delimiter.join(written(random, field, quote) for field in record) + line_end for record in records)
    for _ in range(random.choice([0, 1, 1, 2, 3, 5])):
        at = random.randint(0, len(text)) if random.random() < 0.1 else random.randint(min(len(text), 3 * columns), len(text))
        cut = random.choice([0, 0, 0, 1, 2])
        text = text[:at] + random.choice(TOKENS) + text[at + cut :]
    if random.random() < 0.1:
        text = "\ufeff" + text
    return Case(text, settings)


def word(random):
    if random.random() < 0.8:
        return random.choice(WORDS)
    return "".join(random.choice(TOKENS) for _ in range(random.randint(1, 4)))


def written(random, field, quote):
    needs = any(mark in field for mark in '"\',;\t\r\n\\')
    if random.random() < (0.9 if needs else 0.3):
        return quote + field.replace(quote, quote * 2) + quote
    return field


def spoilt_line(random, settings):
    delimiter, quote = settings.get("delimiter", ","), settings.get("quote", '"')
    lines = [f"k{number}{delimiter}v{number}" for number in range(random.randint(2, 9))]
    spoilt = random.randrange(1, len(lines) + 1)
    junk = "".join(random.choice([quote, quote, quote * 2, delimiter, "a", " ", "12"]) for _ in range(random.randint(1, 8)))
    lines.insert(spoilt, junk)
    line_end = random.choice(["\n", "\r\n"])
    clean = [number + 1 for number in range(1, len(lines)) if number != spoilt]
    return Case("".join(line + line_end for line in lines), settings, clean)


def line_end_of(case, text):
    """The first line end that no quote encloses: a carriage return alone ends lines only if it is the first."""
    quote, enclosed = case.settings.get("quote", '"'), False
    for at, mark in enumerate(text):
        if mark == quote:
            enclosed = not enclosed
        elif mark == "\n" and not enclosed:
            return "\n"
        elif mark == "\r" and not enclosed:
            rest = text[at:].lstrip("\r")
            return "\r" if rest and rest[0] != "\n" else "\n"
    return "\n"


def values(record):
    return [field if field != "" else None for field in record]


def physical_lines(text):
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


def records_of(case, text):
    """Python's records with the places where each begins and ends, up to the first that it refuses."""
    place = 0

    def lines():
        nonlocal place
        for line in physical_lines(text):
            place += len(line)
            yield line

    reader = case.reader(lines())
    while True:
        start = place
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield start, None, None
            return
        if record:
            yield start, place, values(record)


def has_outside_escape(case, raw):
    """Whether a backslash stands outside of quotes, where the setting says that it is an ordinary character."""
    quote, delimiter, enclosed, at = case.settings.get("quote", '"'), case.settings.get("delimiter", ","), False, 0
    begins = True
    while at < len(raw):
        mark = raw[at]
        if mark == "\\":
            if not enclosed:
                return True
            at += 1
        elif mark == quote and (enclosed or begins):
            enclosed = not enclosed
        begins = mark == delimiter and not enclosed
        at += 1
    return False


def judge(case, answer, figures, stricter):
    text = case.text.removeprefix("\ufeff")
    end = line_end_of(case, text)
    starts = [0] + [match.end() for match in re.finditer(end, text)]
    line_at = lambda place: text.count(end, 0, place) + 1
    if answer.get("error"):
        figures["refused_files"] += 1
        return
    found = []

    def count(figure, why):
        figures[figure] += 1
        found.append((figure, why))

    taken = {line: row for line, row in answer["rows"]}
    set_aside = {line: (reason, raw) for line, reason, raw in answer["malformed"]}
    figures["rows_taken"] += len(taken)
    figures["lines_set_aside"] += len(set_aside)
    for line, row in taken.items():
        rest = text[starts[line - 1] :]
        try:
            record = values(next(case.reader(physical_lines(rest))))
        except csv.Error as error:
            count("refused_by_python", f"line {line}: {row}: {error}")
            continue
        if record != row:
            backslash = case.settings.get("dialect") == "backslash"
            if backslash and has_outside_escape(case, rest.split(end, 1)[0]):
                figures["outside_escapes"] += 1
            else:
                count("read_otherwise", f"line {line}: {row} is {record}")
    known, last, header = set(), None, True
    if case.settings.get("dialect") == "backslash":
        # Without doubled quotes Python is not strict about what follows one: only single rows can be compared.
        last = 0
    for start, stop, record in records_of(case, text) if last is None else ():
        if record is None:
            last = line_at(start)
            break
        line = line_at(start)
        if header:
            header = False
            if [name.strip() for name in (field or "" for field in record)] != answer["columns"]:
                count("read_otherwise", f"header {answer['columns']} is {record}")
            continue
        known.add(line)
        if line in taken:
            continue
        reason = next((set_aside[near] for near in range(line, line_at(max(start, stop - 1)) + 1) if near in set_aside), None)
        if reason is None:
            count("lost", f"line {line}: {record}")
        else:
            stricter[kind_of(reason[0])] = stricter.get(kind_of(reason[0]), 0) + 1
    for line in taken:
        if line not in known and (last is None or line < last):
            count("phantom", f"line {line}: {taken[line]}")
    for line in case.clean_lines:
        if line not in taken:
            count("neighbours", f"line {line} is no row")
    for figure, why in found:
        print(f"{figure}: {why}\n  {case.settings} {case.text!r}", file=sys.stderr)


def kind_of(reason):
    return re.sub(r"`.`|[0-9]+", "N", reason)


def run(count, seed, ask):
    generator = random.Random(seed)
    figures = dict.fromkeys([*FIGURES, "files", "lines", "rows_taken", "lines_set_aside", "refused_files", "outside_escapes"], 0)
    stricter = {}
    for _ in range(count):
        case = draw(generator)
        figures["files"] += 1
        figures["lines"] += len(physical_lines(case.text))
        judge(case, json.loads(ask(case.request())), figures, stricter)
    return {"seed": seed, **figures, "stricter": dict(sorted(stricter.items(), key=lambda item: -item[1]))}


def piped(request):
    print(request, flush=True)
    return sys.stdin.readline()


class Reader:
    """The example `csv_rows`, built and started."""

    def __init__(self, command):
        if command is None:
            subprocess.run(["cargo", "build", "--quiet", "--package", "flowgate-connect", "--example", "csv_rows"], check=True)
            command = "target/debug/examples/csv_rows"
        self.process = subprocess.Popen([command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


KINDS = [
    ("a field with a doubled quote, a delimiter, a line end inside of quotes", 'a,b\n1,"x ""y"", z\nw"\n2,y\n'),
    ("an empty field in quotes", 'a,b\n1,""\n2,y\n'),
    ("text after the quote that closes", 'a,b\n1,"x" y\n2,y\n'),
    ("a blank after the quote that closes", 'a,b\n1,"x" \n2,y\n'),
    ("a blank before a quote", 'a,b\n1, "x"\n2,y\n'),
    ("a quote inside a field that does not begin with one", 'a,b\n1,5" pipe\n2,y\n'),
    ("a backslash before a quote", 'a,b\n1,"x \\" y"\n2,y\n'),
    ("a quote that never closes", 'a,b\n1,"x\n2,y\n'),
    ("too few fields", "a,b\n1\n2,y\n"),
    ("too many fields", "a,b\n1,x,z\n2,y\n"),
    ("a delimiter at the end of a line", "a,b\n1,x,\n2,y\n"),
    ("a blank line", "a,b\n1,x\n\n2,y\n"),
    ("a line of blanks", "a,b\n1,x\n  \n2,y\n"),
    ("line feeds beside carriage returns with line feeds", "a,b\n1,x\r\n2,y\n"),
    ("two carriage returns before a line feed", "a,b\r\r\n1,x\r\r\n2,y\r\r\n"),
    ("carriage returns alone at the end of every line", "a,b\r1,x\r2,y\r"),
    ("a carriage return inside a field without quotes", "a,b\n1,x\rz\n2,y\n"),
    ("a carriage return inside of quotes", 'a,b\n1,"x\rz"\n2,y\n'),
    ("a NUL", "a,b\n1,x\0z\n2,y\n"),
    ("a byte-order mark at the beginning of a later line", "a,b\n1,x\n\ufeff2,y\n"),
    ("a last line without a line end", "a,b\n1,x\n2,y"),
]


def list_kinds(reader):
    """A table of which reader takes which kind: all lines, some of them, or none."""
    import duckdb
    import tempfile

    print("| kind | Flowgate | Python, strict | DuckDB, strict |\n|---|---|---|---|")
    for kind, text in KINDS:
        case = Case(text, {})
        answer = json.loads(reader.ask(case.request()))
        ours = "refuses the file" if answer.get("error") else f"sets {len(answer['malformed'])} aside" if answer["malformed"] else "takes"
        try:
            widths = {len(record) for record in case.reader(physical_lines(text)) if record}
            python = "takes" if widths == {2} else "takes, with other fields"
        except csv.Error:
            python = "refuses"
        with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            options = "strict_mode=true, auto_detect=false, header=true, columns={'a': 'VARCHAR', 'b': 'VARCHAR'}, delim=',', quote='\"', escape='\"'"
            try:
                duckdb.sql(f"SELECT * FROM read_csv('{file.name}', {options})").fetchall()
                duck = "takes"
            except duckdb.Error:
                duck = "refuses"
        print(f"| {kind} | {ours} | {python} | {duck} |")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--reader", help="a built `csv_rows`; built anew if left out")
    arguments.add_argument("--pipe", action="store_true")
    arguments.add_argument("--kinds", action="store_true")
    given = arguments.parse_args()
    if given.kinds:
        return list_kinds(Reader(given.reader))
    figures = run(given.files, given.seed, piped if given.pipe else Reader(given.reader).ask)
    print(json.dumps(figures), file=sys.stderr if given.pipe else sys.stdout)
    sys.exit(any(figures[figure] for figure in FIGURES))


if __name__ == "__main__":
    main()
