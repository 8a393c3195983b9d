"""Runs real clients against the emulator: installs them, starts it over TLS, counts the results.

    python3 run.py --emulator target/debug/flowgate-emulator --folder target/clients [python|node|docs]

Nothing is installed outside the folder. The last line is `test result: N passed; M failed`; a suite
that ran no test has failed, and so has a test that was skipped.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent


class Emulator:
    """One process, from its ready line to its end."""

    def __init__(self, program):
        command = [program, "--listen", "127.0.0.1:0", "--tls"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        self.line = self.process.stdout.readline().strip()
        self.ready = json.loads(self.line)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)

    def environment(self):
        """What a developer would set: the authority to trust, in the variables that clients read."""
        ca_file = self.ready["ca_file"]
        return {
            **os.environ,
            "FLOWGATE_READY": self.line,
            "REQUESTS_CA_BUNDLE": ca_file,
            "SSL_CERT_FILE": ca_file,
            "NODE_EXTRA_CA_CERTS": ca_file,
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def is_current(folder, *sources):
    """Whether the folder was installed from these files, as they are now."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    stamp = folder / "installed-from"
    if stamp.exists() and stamp.read_text() == digest:
        return True, stamp, digest
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return False, stamp, digest


def install_python(folder):
    requirements = HERE / "python" / "requirements.txt"
    done, stamp, digest = is_current(folder, requirements)
    if not done:
        venv.create(folder, with_pip=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", requirements], check=True)
        stamp.write_text(digest)
    return folder / "bin" / "python"


def install_node(folder):
    sources = [HERE / "node" / name for name in ("package.json", "package-lock.json")]
    done, stamp, digest = is_current(folder, *sources)
    if not done:
        for source in sources:
            shutil.copy(source, folder)
        subprocess.run(["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
        stamp.write_text(digest)
    # Modules are looked for beside the files that import them.
    for file in HERE.glob("node/*.mjs"):
        shutil.copy(file, folder)
    return folder


def run(command, **options):
    """Runs a command, shows what it says, returns it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        lines.append(line)
    return process.wait(), "".join(lines)


def python_suite(folder, emulator):
    python = install_python(folder / "python")
    command = [python, "-m", "pytest", HERE / "python"]
    status, said = run(command, env=emulator.environment(), cwd=folder)
    last = said.strip().rpartition("\n")[2]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", last)}
    passed = counts.get("passed", 0)
    failed = sum(counts.get(word, 0) for word in ("failed", "error", "errors", "skipped", "xfailed"))
    return passed, failed or int(status != 0)


def node_suite(folder, emulator):
    place = install_node(folder / "node")
    files = sorted(file.name for file in HERE.glob("node/*.test.mjs"))
    command = ["node", "--test", "--test-reporter=tap", "--test-concurrency=1", *files]
    status, said = run(command, env=emulator.environment(), cwd=place)
    counts = {word: int(number) for word, number in re.findall(r"^# (\w+) (\d+)$", said, re.MULTILINE)}
    failed = sum(counts.get(word, 0) for word in ("fail", "cancelled", "skipped", "todo"))
    return counts.get("pass", 0), failed or int(status != 0)


def docs_suite(folder, emulator):
    """The snippets of docs/emulator.md, as a reader would copy them."""
    text = (HERE.parents[3] / "docs" / "emulator.md").read_text()
    python, node = install_python(folder / "python"), install_node(folder / "node")
    (node / "ready.json").write_text(emulator.line)
    # The snippets set what they need themselves; Node reads its authority when it starts.
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": emulator.ready["ca_file"]}
    passed = failed = 0
    for number, (language, snippet) in enumerate(re.findall(r"```(python|js)\n(.*?)```", text, re.DOTALL)):
        file = node / f"snippet-{number}.{'py' if language == 'python' else 'mjs'}"
        file.write_text(snippet)
        status, _ = run([python if language == "python" else "node", file], cwd=node, env=environment)
        passed, failed = passed + (status == 0), failed + (status != 0)
    return passed, failed


SUITES = {"python": python_suite, "node": node_suite, "docs": docs_suite}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--emulator", type=pathlib.Path, required=True)
    arguments.add_argument("--folder", type=pathlib.Path, required=True)
    arguments.add_argument("suites", nargs="*", choices=[[], *SUITES], default=[])
    options = arguments.parse_args()
    passed = failed = 0
    for name in options.suites or SUITES:
        print(f"-- {name}", flush=True)
        with Emulator(options.emulator.resolve()) as emulator:
            suite_passed, suite_failed = SUITES[name](options.folder.resolve(), emulator)
        passed += suite_passed
        failed += suite_failed or int(suite_passed == 0)
    print(f"test result: {passed} passed; {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
