"""The diff from Parquet staging beside DuckDB's full outer join, on the same two files, in one run.

    python3 bench/diff.py [--rows 4000000] [--threads 2] [--rounds 3] [--zstd]

Both find which rows of the second file are new, gone or changed, and in which of 20 columns. DuckDB joins the two
files by their key and compares every column with IS DISTINCT FROM; it keeps only sums. Flowgate compares the second
file with the state that the first one left, and writes the next state durably, which DuckDB has no need to. They take
turns; the best round of each counts. Prints one JSON object. DuckDB comes from PyPI, into target/duckdb.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEY = "asset_number"


def duckdb_python() -> pathlib.Path:
    """A Python that has DuckDB, in a private folder."""
    folder = ROOT / "target" / "duckdb"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "duckdb"], check=True)
    return python


def flowgate_binary() -> pathlib.Path:
    command = ["cargo", "build", "--release", "--locked", "--package", "flowgate-bench-diff"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "flowgate-bench-diff"


def join(first: str, second: str, threads: int) -> dict:
    """Runs in the Python that has DuckDB."""
    import duckdb

    connection = duckdb.connect(config={"threads": threads})
    columns = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM '{first}'").fetchall() if row[0] != KEY]
    differs = " + ".join(f"(o.{column} IS DISTINCT FROM n.{column})::INT" for column in columns)
    query = f"""
        SELECT count(*) FILTER (old_key IS NULL) AS created,
               count(*) FILTER (new_key IS NULL) AS gone,
               count(*) FILTER (both_there AND differing > 0) AS updated,
               coalesce(sum(differing) FILTER (both_there), 0) AS columns_changed
        FROM (SELECT o.{KEY} AS old_key, n.{KEY} AS new_key, o.{KEY} IS NOT NULL AND n.{KEY} IS NOT NULL AS both_there,
                     {differs} AS differing
              FROM '{first}' o FULL OUTER JOIN '{second}' n ON o.{KEY} = n.{KEY})"""
    begun, cpu = time.monotonic(), time.process_time()
    created, gone, updated, columns_changed = connection.execute(query).fetchone()
    return {
        "seconds": time.monotonic() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "found": [created, gone, updated, int(columns_changed)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--zstd", action="store_true", help="files as zstd writes them")
    parser.add_argument("--join", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.join:
        print(json.dumps(join(*options.join, options.threads)))
        return
    python, binary = duckdb_python(), flowgate_binary()
    flowgate, duckdb = [], []
    with tempfile.TemporaryDirectory() as folder:
        ours = [binary, "staging", "--rows", str(options.rows), "--threads", str(options.threads), "--dir", folder]
        theirs = [python, __file__, "--threads", str(options.threads)]
        theirs += ["--join", f"{folder}/first.parquet", f"{folder}/second.parquet"]
        for _ in range(options.rounds):
            flowgate.append(json.loads(subprocess.check_output(ours + ["--zstd"] * options.zstd))["figures"])
            duckdb.append(json.loads(subprocess.check_output(theirs)))
    best, best_join = (min(rounds, key=lambda one: one["seconds"]) for rounds in (flowgate, duckdb))
    found = [best[name] for name in ("created", "gone", "updated", "columns_changed")]
    if found != best_join["found"]:
        sys.exit(f"the two do not agree: {found} and {best_join['found']}")
    ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in zip(flowgate, duckdb)]
    print(
        json.dumps(
            {
                "bench": "diff against DuckDB",
                "rows": options.rows,
                "threads": options.threads,
                "flowgate": best,
                "duckdb": best_join,
                "times_faster": round(best_join["seconds"] / best["seconds"], 2),
                "times_faster_by_round": [round(ratio, 2) for ratio in ratios],
                "times_less_cpu": round(best_join["cpu_seconds"] / best["cpu_seconds"], 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
