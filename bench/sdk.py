#!/usr/bin/env python3
"""Flowgate's loader against Microsoft's Python SDK, at its fastest documented call.

    python3 bench/sdk.py [--rows 20000] [--servers 1 4] [--folder target/clients]

The SDK (`PowerPlatform-Dataverse-Client`, installed into the folder) is given lists of 1,000 rows,
which it sends by `CreateMultiple`, one list after the other: it has no call that sends several at
once, and 1,000 is what the service takes. Both write the same rows of ten columns into an emulator
of their own (profile `realistic`, time scale 1, HTTPS), a process apart. The clock runs from the first
request, metadata included, to the last acknowledgement. Prints one JSON object.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "crates/emulator/tests/clients")]

from emulator import row  # noqa: E402
from run import install_python  # noqa: E402

#: The most that `CreateMultiple` is documented to do well with.
LIST_ROWS = 1000

#: Run by the interpreter of the folder, with the rows on standard input.
SDK = f"""
import json, sys, time
from azure.core.credentials import AccessToken
from PowerPlatform.Dataverse.client import DataverseClient

class Known:
    def get_token(self, *scopes, **options):
        return AccessToken(sys.argv[2], int(time.time()) + 86400)

rows = json.load(sys.stdin)
start = time.perf_counter()
with DataverseClient(sys.argv[1], Known()) as client:
    done = 0
    for first in range(0, len(rows), {LIST_ROWS}):
        done += len(client.records.create("account", rows[first:first + {LIST_ROWS}]))
print(json.dumps({{"rows": done, "seconds": time.perf_counter() - start}}))
"""


class Emulator:
    """A process of its own, until its standard input is closed."""

    def __init__(self, program, servers):
        command = [program, "emulator", "--servers", str(servers), "--time-scale", "1", "--tls"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self.ready

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)


def flowgate(program, ready, rows):
    command = [program, "load", "--url", ready["url"], "--token", ready["token"], "--rows", str(rows)]
    command += ["--ca-file", ready["ca_file"]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)["figures"]


def sdk(python, ready, rows):
    data = [{name: value for name, value in row(n).items() if name != "@odata.type"} for n in range(rows)]
    command = [python, "-c", SDK, ready["url"], ready["token"]]
    environment = {**os.environ, "REQUESTS_CA_BUNDLE": ready["ca_file"]}
    done = subprocess.run(
        command, input=json.dumps(data), env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def compare(program, python, rows, servers):
    with Emulator(program, servers) as ready:
        ours = flowgate(program, ready, rows)
    with Emulator(program, servers) as ready:
        theirs = sdk(python, ready, rows)
    if ours["rows"] != rows or theirs["rows"] != rows:
        raise SystemExit(f"{ours['rows']} and {theirs['rows']} of {rows} rows were written")
    return {
        "flowgate_s": round(ours["seconds"], 2), "sdk_s": round(theirs["seconds"], 2),
        "times_faster": round(theirs["seconds"] / ours["seconds"], 2),
        "throttled": ours["throttled"], "requests": ours["requests"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "target" / "clients")
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--package", "flowgate-bench"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program, python = target / "release" / "flowgate-bench", install_python(options.folder / "python")
    figures = {f"servers_{count}": compare(program, python, options.rows, count) for count in options.servers}
    print(json.dumps({"bench": "sdk", "rows": options.rows, "figures": figures}))


if __name__ == "__main__":
    main()
