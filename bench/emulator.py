#!/usr/bin/env python3
"""Speed and memory of the emulator alone: rows into CreateMultiple, pages read back, start.

    python3 bench/emulator.py [--rows 1000000] [--batch 1000] [--parallel 2] [--profile instant|sink]

Builds and starts `flowgate-emulator` (release) as a process of its own and speaks plain HTTP to it
from this one: bodies are made beforehand, answers are not parsed. Both share the machine's cores.
Prints one JSON object: rows a second in and out, peak memory (VmHWM) and bytes a row, start.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
SELECT = (
    "name,accountnumber,telephone1,emailaddress1,address1_line1,address1_city,address1_postalcode,"
    "numberofemployees,donotphone,description"
)
#: Different bodies that are sent in turn; keys are not among the columns, so that they may repeat.
BODIES = 64


def row(n):
    """A row of ten columns, about 330 bytes of JSON."""
    return {
        "@odata.type": "Microsoft.Dynamics.CRM.account",
        "name": f"Customer {n}", "accountnumber": f"C-{n:08}", "telephone1": "+44 20 7946 0000",
        "emailaddress1": f"customer{n}@example.org", "address1_line1": "1 High Street", "address1_city": "London",
        "address1_postalcode": "SW1A 1AA", "numberofemployees": n % 1000, "donotphone": n % 2 == 0,
        "description": "A row of ten columns",
    }


class Emulator:
    def __init__(self, program, profile):
        before = time.perf_counter()
        command = [program, "--listen", "127.0.0.1:0", "--profile", profile]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.ready = json.loads(self.process.stdout.readline())
        self.start_ms = (time.perf_counter() - before) * 1000
        self.address = urllib.parse.urlsplit(self.ready["url"]).netloc

    def memory(self, name):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+) kB", status).group(1)) * 1024

    def headers(self, **more):
        return {"Authorization": f"Bearer {self.ready['token']}", **more}

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def write_all(emulator, options):
    bodies = [
        json.dumps({"Targets": [row(n) for n in range(k * options.batch, (k + 1) * options.batch)]}).encode()
        for k in range(min(BODIES, options.rows // options.batch))
    ]
    batches = iter(range(options.rows // options.batch))
    lock = threading.Lock()
    failures = []

    def writer():
        connection = http.client.HTTPConnection(emulator.address)
        headers = emulator.headers(**{"Content-Type": "application/json"})
        while not failures:
            with lock:
                k = next(batches, None)
            if k is None:
                return
            path = "/api/data/v9.2/accounts/Microsoft.Dynamics.CRM.CreateMultiple"
            connection.request("POST", path, bodies[k % len(bodies)], headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failures.append(answer.status)

    before = time.perf_counter()
    threads = [threading.Thread(target=writer) for _ in range(options.parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"a request was answered {failures[0]}")
    return time.perf_counter() - before


def read_all(emulator):
    connection = http.client.HTTPConnection(emulator.address)
    headers = emulator.headers(Prefer="odata.maxpagesize=5000")
    path, rows = f"/api/data/v9.2/accounts?$select={SELECT}", 0
    before = time.perf_counter()
    while path:
        connection.request("GET", path, headers=headers)
        text = connection.getresponse().read()
        rows += text.count(b'"@odata.etag"')
        link = re.search(rb'"@odata.nextLink":"https?://[^/]+([^"]+)"', text[:4096] + text[-4096:])
        path = link.group(1).decode() if link else None
    return rows, time.perf_counter() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--profile", choices=["instant", "sink"], default="instant")
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--package", "flowgate-emulator"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    emulator = Emulator(target / "release" / "flowgate-emulator", options.profile)
    try:
        empty = emulator.memory("VmRSS")
        write_s = write_all(emulator, options)
        full = emulator.memory("VmRSS")
        read, read_s = read_all(emulator)
        if read != options.rows // options.batch * options.batch:
            raise SystemExit(f"{read} rows came back")
        figures = {
            "rows": read, "batch": options.batch, "parallel": options.parallel, "profile": options.profile,
            "write_rows_per_s": round(read / write_s), "read_rows_per_s": round(read / read_s),
            "bytes_per_row": round((full - empty) / read), "peak_mib": round(emulator.memory("VmHWM") / 2**20),
            "start_ms": round(emulator.start_ms),
        }
        print(json.dumps({"bench": "emulator", "figures": figures}))
    finally:
        emulator.stop()


if __name__ == "__main__":
    main()
