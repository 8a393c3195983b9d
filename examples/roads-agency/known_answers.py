#!/usr/bin/env python3
"""What Dataverse must hold after each day of the demo, worked out from the source files alone.

    python3 known_answers.py            write known_answers.json
    python3 known_answers.py --check    fail if known_answers.json is not what the files say

This script shares nothing with Flowgate: it reads the files in data/ with Python's standard library
and says, for each table and day, how many rows there must be and what they must add up to.

The hash of a table does not depend on the order of its rows: the sum, modulo 2^64, of one number for
each row. That number is the first 8 bytes, most significant first, of the SHA-256 of the row's fields
in the order of TABLES, as UTF-8 text with U+001F between them. A null is the empty text. The other
forms are: `integer` in decimal digits; `decimal N` with exactly N digits after the point; `date` as
YYYY-MM-DD; `instant` in UTC as YYYY-MM-DDTHH:MM:SSZ; `reference` as the key of the row referred to.
Columns that no field names are not compared (Dataverse fills many by itself).
"""

import csv
import datetime
import decimal
import glob
import gzip
import hashlib
import io
import json
import os
import re
import sqlite3
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ANSWERS = os.path.join(HERE, "known_answers.json")
SNAPSHOTS = ["20230303", "20240806", "20250909", "20250909"]  # of days 1 to 4


def column(name, form="text", **reference):
    return {"column": name, "form": form, **reference}


ADDRESS = ["address1_line1", "address1_line2", "address1_city", "address1_postalcode",
           "address1_stateorprovince", "address1_country"]
STATUS = [column("statecode", "integer"), column("statuscode", "integer")]

# Table: its set in addresses, the column that holds our key, and the fields that are compared.
TABLES = {
    "account": {
        "set": "accounts",
        "key": "accountnumber",
        "fields": [column("accountnumber"), column("name"), column("customertypecode", "integer"),
                   column("websiteurl"), column("numberofemployees", "integer"),
                   *map(column, ADDRESS), *STATUS],
    },
    "contact": {
        "set": "contacts",
        "key": "wr_personnumber",
        "fields": [column("wr_personnumber"), column("wr_customernumber"), column("salutation"),
                   column("firstname"), column("lastname"), column("emailaddress1"),
                   column("telephone2"), column("mobilephone"), column("jobtitle"),
                   column("birthdate", "date"), column("gendercode", "integer"),
                   column("familystatuscode", "integer"), column("numberofchildren", "integer"),
                   column("annualincome", "decimal 2"),
                   column("_transactioncurrencyid_value", "reference", set="transactioncurrencies",
                          id="transactioncurrencyid", key="isocurrencycode"),
                   *map(column, ADDRESS), *STATUS],
    },
    "incident": {
        "set": "incidents",
        "key": "wr_reference",
        "fields": [column("wr_reference"), column("title"), column("description"),
                   column("_customerid_value", "reference", set="accounts", id="accountid",
                          key="accountnumber"),
                   column("casetypecode", "integer"), column("caseorigincode", "integer"),
                   column("prioritycode", "integer"),
                   column("wr_easting", "decimal 9"), column("wr_northing", "decimal 9"),
                   column("createdon", "instant"), *STATUS],
    },
    "wr_asset": {
        "set": "wr_assets",
        "key": "wr_icao",
        "fields": [column(name) for name in
                   ["wr_icao", "wr_name", "wr_iata", "wr_city", "wr_subdivision", "wr_country",
                    "wr_elevation", "wr_lat", "wr_lon", "wr_timezone", "wr_localid"]],
    },
}

# The numbers behind the labels, as Dataverse publishes them for its standard tables.
CUSTOMER_TYPE = {"Customer": 3, "Vendor": 11, "Other": 12}
ACTIVE, INACTIVE = (0, 1), (1, 2)  # statecode, statuscode of account and contact
CASE_STATUS = {"Completed Enquiries": (1, 5), "Further Information Required": (0, 3)}
CASE_IN_PROGRESS = (0, 1)


def main():
    answers = work_out()
    text = json.dumps(answers, indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        with open(ANSWERS, encoding="utf-8") as file:
            if file.read() != text:
                sys.exit("known_answers.json is not what the source files say: run known_answers.py")
    else:
        with open(ANSWERS, "w", encoding="utf-8") as file:
            file.write(text)
    for day, tables in answers["days"].items():
        for table, answer in tables.items():
            print(f"day {day}  {table:9} {answer['rows']:6} rows  {answer['hash']}")


def work_out():
    enquiries = read_enquiries()
    customers, contacts = contacts_of(business := read_business())
    accounts = {**offices_of(enquiries), **organisations_of(business)}
    incidents = incidents_of(enquiries)
    fixed = {"account": accounts, "contact": contacts, "incident": incidents}
    days, changes, register = {}, {}, {}
    for day, snapshot in enumerate(SNAPSHOTS, start=1):
        changes[str(day)] = apply_snapshot(register, read_assets(snapshot))
        tables = {**fixed, "wr_asset": register["rows"]}
        days[str(day)] = {name: answer(name, rows) for name, rows in tables.items()}
    return {
        "tables": TABLES,
        "sources": {
            "enquiries": len(enquiries),
            "enquiries_completed": sum(row["APPROVAL_STATUS_NAME"] == "Completed Enquiries" for row in enquiries),
            "enquiries_superseded": len(enquiries) - len(incidents),
            "cases_closed": sum(row["statecode"] == 1 for row in incidents.values()),
            "customers": customers,
            "customers_joined_by_email": len(contacts),
        },
        "asset_changes": changes,
        "days": days,
    }


def answer(table, rows):
    total = 0
    for row in rows.values():
        fields = "\x1f".join(canonical(row.get(f["column"]), f["form"]) for f in TABLES[table]["fields"])
        total += int.from_bytes(hashlib.sha256(fields.encode()).digest()[:8], "big")
    return {"rows": len(rows), "hash": f"{total % 2**64:016x}"}


def canonical(value, form):
    if value is None:
        return ""
    if form.startswith("decimal"):
        return f"{decimal.Decimal(value):.{int(form.split()[1])}f}"
    return str(value)


# Enquiries: offices and cases.

def read_enquiries():
    rows = []
    for path in sorted(glob.glob(os.path.join(HERE, "data", "pothole_enquiries_*.csv.gz"))):
        rows += read_csv(path)
    return rows


def office_number(name):
    return "DFI-" + hashlib.sha256(name.encode()).hexdigest()[:12]


def office_name(name):
    return "Office Not Recorded" if name == "?" else proper_case(name)


def offices_of(enquiries):
    return {
        office_number(name): {
            "accountnumber": office_number(name), "name": office_name(name),
            "customertypecode": CUSTOMER_TYPE["Other"], **status(ACTIVE),
        }
        for name in {row["CLIENT_OFFICE_NAME"] for row in enquiries}
    }


def incidents_of(enquiries):
    cases = {}
    for row in enquiries:
        reference = hashlib.sha256("|".join(row.values()).encode()).hexdigest()
        located = row["EASTING"] != "0"
        where = f"Irish Grid {row['EASTING']}, {row['NORTHING']}." if located else "Not located."
        category, office = row["ENQUIRY_CATEGORY"], row["CLIENT_OFFICE_NAME"]
        cases[reference] = {
            "wr_reference": reference,
            "title": f"{row['ENQUIRY_TYPE']}, {office_name(office)}, {row['DATE_RECORDED'][:10]}",
            "description": f"{category}, {proper_case(row['DIVISION'])}. {where}",
            "_customerid_value": office_number(office),
            "casetypecode": 2 if category == "Complaints" else 3,
            "caseorigincode": 1 if category == "Call Centre Public Enquiry" else None,
            "prioritycode": 2,
            "wr_easting": row["EASTING"] if located else None,
            "wr_northing": row["NORTHING"] if located else None,
            "createdon": utc_of_london(row["DATE_RECORDED"]),
            **status(CASE_STATUS.get(row["APPROVAL_STATUS_NAME"], CASE_IN_PROGRESS)),
        }
    return cases


def utc_of_london(text):
    """`01/04/2015 15:50:00` on a London clock, in UTC. No time of the files lies in a changed hour."""
    local = datetime.datetime.strptime(text, "%d/%m/%Y %H:%M:%S")
    begins, ends = last_sunday(local.year, 3), last_sunday(local.year, 10)
    summer = begins + datetime.timedelta(hours=2) <= local < ends + datetime.timedelta(hours=1)
    utc = local - datetime.timedelta(hours=1 if summer else 0)
    return utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def last_sunday(year, month):
    day = datetime.datetime(year, month, 31)
    return day - datetime.timedelta(days=(day.weekday() + 1) % 7)


# The business application and the sales application: organisations and people.

def read_business():
    """Every table of the SQLite file as a list of dictionaries."""
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        with gzip.open(os.path.join(HERE, "data", "business.sqlite.gz")) as packed:
            file.write(packed.read())
        file.flush()
        connection = sqlite3.connect(file.name)
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = {name: [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')] for name in names}
        connection.close()
        return tables


def addresses_of(business, address_type):
    """The address columns by business entity, for one type of address."""
    countries = {row["countryregioncode"]: row["name"] for row in business["person_countryregion"]}
    provinces = {row["stateprovinceid"]: row for row in business["person_stateprovince"]}
    addresses = {row["addressid"]: row for row in business["person_address"]}
    found = {}
    for link in business["person_businessentityaddress"]:
        if link["addresstypeid"] == address_type:
            address = addresses[link["addressid"]]
            province = provinces[address["stateprovinceid"]]
            found[link["businessentityid"]] = dict(zip(ADDRESS, [
                address["addressline1"], address["addressline2"], address["city"], address["postalcode"],
                province["name"], countries[province["countryregioncode"]],
            ]))
    return found


def organisations_of(business):
    offices = addresses_of(business, 3)
    accounts = {}
    for store in business["sales_store"]:
        employees = re.search("<NumberEmployees>([0-9]+)<", store["demographics"] or "")
        number = f"STORE-{store['businessentityid']}"
        accounts[number] = {
            "accountnumber": number, "name": store["name"], "customertypecode": CUSTOMER_TYPE["Customer"],
            "numberofemployees": int(employees[1]) if employees else None,
            **offices.get(store["businessentityid"], {}), **status(ACTIVE),
        }
    for vendor in business["purchasing_vendor"]:
        number = vendor["accountnumber"]
        accounts[number] = {
            "accountnumber": number, "name": vendor["name"], "customertypecode": CUSTOMER_TYPE["Vendor"],
            "websiteurl": vendor["purchasingwebserviceurl"],
            **offices.get(vendor["businessentityid"], {}),
            **status(ACTIVE if vendor["activeflag"] == "true" else INACTIVE),
        }
    return accounts


def contacts_of(business):
    """The number of sales customers, and the contacts of those whose e-mail address is known."""
    people = {row["emailaddress"].lower(): row["businessentityid"] for row in business["person_emailaddress"]}
    phones = {row["businessentityid"]: row for row in business["person_personphone"]}
    homes = addresses_of(business, 2)
    customers = read_csv(os.path.join(HERE, "data", "AdventureWorks_Customers.csv.gz"))
    contacts = {}
    for customer in customers:
        email = customer["EmailAddress"].strip().lower()
        if email not in people:
            continue
        person = people[email]
        phone = phones.get(person, {})
        number_of = {phone.get("phonenumbertypeid"): phone.get("phonenumber")}
        month, day, year = customer["BirthDate"].split("/")
        contacts[str(person)] = {
            "wr_personnumber": person,
            "wr_customernumber": customer["CustomerKey"],
            "salutation": proper_case(customer["Prefix"]) or None,
            "firstname": proper_case(customer["FirstName"]),
            "lastname": proper_case(customer["LastName"]),
            "emailaddress1": email,
            "mobilephone": number_of.get(1),
            "telephone2": number_of.get(2),
            "jobtitle": customer["Occupation"],
            "birthdate": datetime.date(int(year), int(month), int(day)),
            "gendercode": {"M": 1, "F": 2}.get(customer["Gender"]),
            "familystatuscode": {"S": 1, "M": 2}[customer["MaritalStatus"]],
            "numberofchildren": int(customer["TotalChildren"]),
            "annualincome": re.sub("[^0-9.]", "", customer["AnnualIncome"]),
            "_transactioncurrencyid_value": "USD",
            **homes.get(person, {}), **status(ACTIVE),
        }
    return len(customers), contacts


# The asset register.

def read_assets(snapshot):
    names = {"icao": "wr_icao", "name": "wr_name", "iata": "wr_iata", "city": "wr_city",
             "subd": "wr_subdivision", "country": "wr_country", "elevation": "wr_elevation",
             "lat": "wr_lat", "lon": "wr_lon", "tz": "wr_timezone", "lid": "wr_localid"}
    rows = {}
    for source in read_csv(os.path.join(HERE, "data", f"airports_{snapshot}.csv.gz")):
        row = {names[name]: value or None for name, value in source.items()}
        for padded in ["wr_name", "wr_subdivision"]:
            row[padded] = row[padded] and row[padded].strip(" ")
        rows[row["wr_icao"]] = row
    return rows


def apply_snapshot(register, today):
    """Brings the register up to date. Rows that left it stay at the destination (`missing: keep`)."""
    rows, yesterday = register.get("rows", {}), register.get("present", set())
    changed = sum(key in rows and rows[key] != row for key, row in today.items())
    counts = {
        "prepared": len(today),
        "created": len(today.keys() - rows.keys()),
        "updated": changed,
        "unchanged": sum(key in rows for key in today) - changed,
        "gone": len(yesterday - today.keys()),
    }
    register["rows"], register["present"] = {**rows, **today}, today.keys()
    return counts


# Small things.

def read_csv(path):
    with gzip.open(path) as packed:
        return list(csv.DictReader(io.TextIOWrapper(packed, encoding="utf-8-sig", newline="")))


def status(codes):
    return {"statecode": codes[0], "statuscode": codes[1]}


def proper_case(text):
    """Every run of letters and digits with a capital first and the rest small."""
    return re.sub(r"[^\W_]+", lambda word: word[0][0].upper() + word[0][1:].lower(), text)


if __name__ == "__main__":
    main()
