#!/usr/bin/env python3
"""What bad rows cost: service seconds of a load with some, against the same load without.

Loads ROWS rows three times into an emulator of its own (profile `realistic`): all of them good; with 0.5 % that do
not fit the table and 1 % whose parent is missing, which Flowgate finds out by itself; and with 0.5 % that only the
service refuses, as a plug-in would. Every good row must be there each time. Ends by itself; listens on loopback only.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent

PROJECT = """\
flowgate: 1
connections:
  crm:
    dataverse:
      url: "{url}"
      credential: {{ client: "{client_id}", secret: "{client_secret}", token_url: "{token_url}" }}
      time_scale: {time_scale}
  rows: {{ files: {{ path: rows.csv, format: csv }} }}
  parents: {{ files: {{ path: parents.csv, format: csv }} }}
"""

FLOW = """\
flow: bad_rows
streams:
  row: { from: rows }
  parent: { from: parents }
loads:
  accounts:
    into: crm
    table: account
    match: [accountnumber]
    select: SELECT number AS accountnumber, 'Parent ' || number AS name FROM parent
  contacts:
    into: crm
    table: contact
    match: [externaluseridentifier]
    lookups: { parentcustomerid: { account: accountnumber } }
    select: SELECT number AS externaluseridentifier, name AS lastname, parent AS parentcustomerid FROM row
"""

PARENTS = 200
# Flowgate's own time counts so many times in what it learns of the service's.
TIME_SCALE = 4
REFUSED = "refused by a plug-in"
REJECT = [{"match": {"table": "contact"}, "do": {"reject": {"column": "lastname", "value": REFUSED}}}]


def is_one_in(number, count):
    """Rows far apart from each other, and the same ones each time."""
    return number * 2_654_435_761 % 2**32 % count == 0


def write_rows(project, rows, kind):
    """Returns how many of the rows are good."""
    good = 0
    with open(project / "parents.csv", "w", encoding="utf-8") as out:
        out.write("number\n" + "".join(f"P{number}\n" for number in range(PARENTS)))
    with open(project / "rows.csv", "w", encoding="utf-8") as out:
        out.write("number,name,parent\n")
        for number in range(rows):
            name, parent = f"Row {number}", f"P{number % PARENTS}"
            if kind == "found by Flowgate" and is_one_in(number, 200):
                name = "too long " * 40
            elif kind == "found by Flowgate" and is_one_in(number + 7, 100):
                parent = "P-missing"
            elif kind == "refused by the service" and is_one_in(number, 200):
                name = REFUSED
            else:
                good += 1
            out.write(f"R{number:07d},{name},{parent}\n")
    return good


def control(ready, name, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{ready['url']}/__emulator/{name}", data=data)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or b"null")


def load(binary, rows, kind):
    """Service seconds of one load, and its counts."""
    with tempfile.TemporaryDirectory(prefix="flowgate-bench-") as name:
        project = pathlib.Path(name)
        command = [binary, "emulator", "--listen", "127.0.0.1:0", "--profile", "realistic"]
        emulator = subprocess.Popen(command + ["--time-scale", str(TIME_SCALE)], stdout=subprocess.PIPE)
        try:
            ready = json.loads(emulator.stdout.readline())
            (project / "flows").mkdir()
            (project / "flowgate.yaml").write_text(PROJECT.format(**ready))
            (project / "flows" / "bad_rows.yaml").write_text(FLOW)
            good = write_rows(project, rows, kind)
            control(ready, "faults", REJECT)
            run = subprocess.run([binary, "-C", name, "run", "bad_rows", "--json"], stdout=subprocess.PIPE, check=False)
            counts = json.loads(run.stdout)["loads"]["contacts"]["rows"]
            stats = control(ready, "stats")
        finally:
            emulator.terminate()
            emulator.wait()
    if counts["created"] != good or counts["quarantined"] != rows - good:
        sys.exit(f"{kind}: {good} rows are good, and the run says {counts}")
    busy_ms = sum(lane["busy_ms"] for lane in stats["busy"])
    return {"service_s": round(busy_ms / 1000, 1), "good": good, "quarantined": counts["quarantined"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--binary", help="use this binary instead of building one")
    arguments = parser.parse_args()
    binary = arguments.binary
    if binary is None:
        subprocess.run(["cargo", "build", "--release", "--package", "flowgate"], cwd=ROOT, check=True)
        binary = str(ROOT / "target" / "release" / "flowgate")
    figures = {kind: load(binary, arguments.rows, kind) for kind in ("none", "found by Flowgate", "refused by the service")}
    for figure in figures.values():
        figure["extra_percent"] = round(100 * (figure["service_s"] / figures["none"]["service_s"] - 1), 1)
    print(json.dumps({"bench": "bad_rows", "figures": figures}, indent=2))


if __name__ == "__main__":
    main()
