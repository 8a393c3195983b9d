#!/usr/bin/env python3
"""What Flowgate itself costs: CPU seconds and peak memory of a first load, and of the day after.

Generates ROWS rows of ten columns as CSV, starts the emulator (profile `sink` or `instant`) as a process of its own,
provisions a table, and runs one flow. Reports user + system seconds and VmHWM of the `flowgate run` process alone.
With `--second-day` one row in a hundred gets another note, and the flow runs again. `seconds` are local ones, by phase;
with `--profile realistic --time-scale 10` the service has seen ten times those of `load`, which are shown apart. Ends by
itself; listens on loopback only.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

PROJECT = """\
flowgate: 1
connections:
  crm:
    dataverse:
      url: "{url}"
      credential: {{ client: "{client_id}", secret: "{client_secret}", token_url: "{token_url}" }}
      solution: agency_integration
      time_scale: {time_scale}
  rows: {{ files: {{ path: rows.csv, format: csv }} }}
provision: allow
"""

TABLE = """\
table: wr_bench
in: crm
display: [Bench row, Bench rows]
primary_name: { wr_name: 100 }
columns:
  wr_number: text(20)
  wr_street: text(100)
  wr_city: text(60)
  wr_note: text(200)
  wr_amount: decimal(2)
  wr_quantity: integer
  wr_opened: datetime
  wr_due: date
  wr_active: boolean
keys:
  wr_bench_number: [wr_number]
"""

FLOW = """\
flow: bench
streams:
  row: { from: rows }
loads:
  rows:
    into: crm
    table: wr_bench
    match: [wr_number]
    select: |
      SELECT number AS wr_number, name AS wr_name, street AS wr_street, city AS wr_city, note AS wr_note,
             CAST(amount AS DECIMAL(18, 2)) AS wr_amount, CAST(quantity AS INT) AS wr_quantity,
             CAST(opened AS TIMESTAMP) AS wr_opened, CAST(due AS DATE) AS wr_due, active AS wr_active
      FROM row
"""


def write_rows(path, rows, day=1):
    chance = random.Random(1)
    cities = ["Belfast", "Derry", "Lisburn", "Newry", "Armagh", "Bangor", "Omagh", "Larne"]
    with open(path, "w", encoding="utf-8") as out:
        out.write("number,name,street,city,note,amount,quantity,opened,due,active\n")
        for number in range(rows):
            version = ", changed" if day == 2 and number % 100 == 7 else ""
            out.write(
                f"R{number:09d},Row {number},{chance.randrange(1, 400)} Main Street,{chance.choice(cities)},"
                f"\"note {chance.getrandbits(64):016x}, as written{version}\",{chance.randrange(0, 10_000_000) / 100:.2f},"
                f"{chance.randrange(0, 1000)},2026-0{chance.randrange(1, 10)}-1{chance.randrange(0, 10)}T08:0{chance.randrange(0, 10)}:00,"
                f"2026-1{chance.randrange(0, 3)}-0{chance.randrange(1, 10)},{chance.choice(['true', 'false'])}\n"
            )


def measured(command, **options):
    """Runs a command; returns its exit status, CPU seconds, wall seconds and peak MiB."""
    started = time.monotonic()
    process = subprocess.Popen(command, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    return process.returncode, cpu, time.monotonic() - started, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--profile", default="instant", choices=["instant", "sink", "realistic"])
    parser.add_argument("--time-scale", type=float, default=1)
    parser.add_argument("--second-day", action="store_true")
    parser.add_argument("--binary", help="use this binary instead of building one")
    parser.add_argument("--emulator", help="use this binary of flowgate-emulator instead of `flowgate emulator`")
    arguments = parser.parse_args()
    binary = arguments.binary
    if binary is None:
        subprocess.run(["cargo", "build", "--release", "--package", "flowgate"], cwd=ROOT, check=True)
        binary = str(ROOT / "target" / "release" / "flowgate")
    with tempfile.TemporaryDirectory(prefix="flowgate-bench-") as name:
        project = pathlib.Path(name)
        command = [arguments.emulator] if arguments.emulator else [binary, "emulator"]
        command += ["--listen", "127.0.0.1:0", "--profile", arguments.profile]
        command += ["--time-scale", str(arguments.time_scale)]
        emulator = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            ready = json.loads(emulator.stdout.readline())
            (project / "flows").mkdir()
            (project / "tables").mkdir()
            (project / "flowgate.yaml").write_text(PROJECT.format(**ready))
            (project / "tables" / "wr_bench.yaml").write_text(TABLE)
            (project / "flows" / "bench.yaml").write_text(FLOW)
            subprocess.run([binary, "-C", name, "provision", "--yes"], check=True, stdout=sys.stderr)
            days = {"first": run_day(binary, project, arguments, 1)}
            if arguments.second_day:
                days["second"] = run_day(binary, project, arguments, 2)
        finally:
            emulator.terminate()
            emulator.wait()
    print(json.dumps({"bench": "load_cost", "figures": {"rows": arguments.rows, **days}}, indent=2))
    is_right = days["first"]["rows"]["created"] == arguments.rows
    if arguments.second_day:
        is_right = is_right and days["second"]["rows"]["updated"] == len(range(7, arguments.rows, 100))
    return 0 if is_right and all(day["exit_status"] == 0 for day in days.values()) else 1


def run_day(binary, project, arguments, day):
    write_rows(project / "rows.csv", arguments.rows, day)
    report = project / "report.json"
    with open(report, "w", encoding="utf-8") as out:
        status, cpu, wall, peak = measured([binary, "-C", str(project), "run", "bench", "--json"], stdout=out)
    run = json.loads(report.read_text())
    return {
        "exit_status": status,
        "rows": {name: run["rows"][name] for name in ("created", "updated", "unchanged")},
        "cpu_seconds_per_million_rows": round(cpu / (arguments.rows / 1_000_000), 2),
        "wall_seconds": round(wall, 2),
        "peak_memory_mib": round(peak, 1),
        "seconds": run["seconds"],
        "service_seconds_of_load": round(run["seconds"]["load"] * arguments.time_scale, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
