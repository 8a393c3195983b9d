#!/usr/bin/env python3
"""Reads the demo's tables back over plain HTTP and compares them with known_answers.json.

    python3 read_back.py URL TOKEN [--day N]

URL is the environment's address, TOKEN a bearer token. Like known_answers.py this shares nothing with
Flowgate: it pages through the Web API with Python's standard library, counts the rows that have our
key, adds up their hashes (known_answers.py says how) and exits 1 when a table differs. Without --day
it names the day whose answers fit.
"""

import argparse
import decimal
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request

ANSWERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "known_answers.json")
ROWS_PER_PAGE = 5000
ATTEMPTS_MAX = 50


class Client:
    def __init__(self, url, token):
        self.base = url.rstrip("/") + "/api/data/v9.2/"
        self.headers = {
            "Authorization": f"Bearer {token}", "Accept": "application/json", "OData-Version": "4.0",
            "OData-MaxVersion": "4.0", "Prefer": f"odata.maxpagesize={ROWS_PER_PAGE}",
        }

    def rows(self, table_set, columns):
        """Every row of the set, page after page."""
        address = f"{self.base}{table_set}?$select={','.join(columns)}"
        while address:
            page = self.get(address)
            yield from page["value"]
            address = page.get("@odata.nextLink")

    def get(self, address):
        for _ in range(ATTEMPTS_MAX):
            try:
                with urllib.request.urlopen(urllib.request.Request(address, headers=self.headers)) as answer:
                    # Decimals as they are written: a float would round some of them.
                    return json.load(answer, parse_float=decimal.Decimal)
            except urllib.error.HTTPError as error:
                if error.code != 429:
                    sys.exit(f"{error.code} for {address}: {error.read(500).decode(errors='replace')}")
                time.sleep(float(error.headers.get("Retry-After", "1")))
        sys.exit(f"still throttled after {ATTEMPTS_MAX} attempts: {address}")


def read_table(client, table):
    keys_of = {
        field["column"]: {row[field["id"]]: row[field["key"]]
                          for row in client.rows(field["set"], [field["id"], field["key"]])}
        for field in table["fields"] if field["form"] == "reference"
    }
    count, total = 0, 0
    for row in client.rows(table["set"], [field["column"] for field in table["fields"]]):
        if row[table["key"]] is None:
            continue
        fields = "\x1f".join(canonical(row[f["column"]], f, keys_of) for f in table["fields"])
        total += int.from_bytes(hashlib.sha256(fields.encode()).digest()[:8], "big")
        count += 1
    return {"rows": count, "hash": f"{total % 2**64:016x}"}


def canonical(value, field, keys_of):
    if value is None:
        return ""
    if field["form"] == "reference":
        return keys_of[field["column"]][value]
    if field["form"].startswith("decimal"):
        return f"{decimal.Decimal(value):.{int(field['form'].split()[1])}f}"
    return str(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("--day", choices=["1", "2", "3", "4"])
    arguments = parser.parse_args()
    with open(ANSWERS, encoding="utf-8") as file:
        known = json.load(file)
    client = Client(arguments.url, arguments.token)
    found = {name: read_table(client, table) for name, table in known["tables"].items()}
    fitting = [day for day, answers in known["days"].items() if answers == found]
    day = arguments.day or (fitting[0] if fitting else "1")
    for name, answer in found.items():
        expected = known["days"][day][name]
        verdict = "as known" if answer == expected else f"NOT as known: {expected['rows']} rows {expected['hash']}"
        print(f"day {day}  {name:9} {answer['rows']:6} rows  {answer['hash']}  {verdict}")
    sys.exit(0 if day in fitting else 1)


if __name__ == "__main__":
    main()
