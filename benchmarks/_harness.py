"""Shared by all benchmarks: rivals side by side in one process, and ratios of them.

Import it before numpy: every thread pool is pinned to one thread, so that CPU time
means work and not the number of cores.
"""

# ruff: noqa: E402
import os

for _name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "BLIS"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"

import argparse
import json
import multiprocessing
import platform
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "sklcomp", "numpy", "scipy", "scikit-learn", "numba", "scikit-image",
    "opencv-python-headless",
)  # fmt: skip


def arguments(description, groups=()):
    """``--quick``: fewer cases, to see that the script works; ``--only``: some rows."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="two seeds, few cases")
    parser.add_argument("--only", nargs="+", choices=list(groups), help="row groups")
    return parser.parse_args()


def data_folder():
    """Folder of the benchmark data, or None with a reason on the screen."""
    folder = Path(os.environ.get("SKLCOMP_DATA", ROOT.parent / "shared" / "data"))
    if folder.is_dir():
        return folder
    print(f"no data at {folder} (set SKLCOMP_DATA): rows that need it are left out")
    return None


def race(rivals, *, repeats=3):
    """Results and times of callables on the same work.

    Each is called once to warm up and give its result, then ``repeats`` times in
    turn, so that a disturbance of the machine hits all of them; the least time counts.
    Where one of them takes more than 5 s, each is repeated once: all rivals get the
    same number of timed runs, and no warm-up is timed.

    Returns
    -------
    dict
        name -> {"result": ..., "cpu": seconds, "wall": seconds}
    """
    found, slowest = {}, 0.0
    for name, call in rivals.items():
        start = time.perf_counter()
        found[name] = {"result": call(), "cpu": np.inf, "wall": np.inf}
        slowest = max(slowest, time.perf_counter() - start)
    for _ in range(repeats if slowest <= 5 else 1):
        for name, call in rivals.items():
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            for kind, start, clock in (
                ("cpu", cpu, time.process_time),
                ("wall", wall, time.perf_counter),
            ):
                found[name][kind] = min(found[name][kind], clock() - start)
    return found


def peak_memory(call, warm_up=None):
    """Growth of the peak resident memory during ``call``, in bytes.

    Runs in a child process, where C allocations are seen as well as Python's. The
    child is started afresh: a forked one would reuse memory that its parent has freed
    and show too little. So ``call`` and ``warm_up``, which loads what is loaded once,
    must be picklable (``functools.partial`` of functions at module level). Linux is
    asked to forget the peak so far (``/proc/self/clear_refs``); elsewhere None.
    """
    if not sys.platform.startswith("linux"):
        return None
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure_peak, args=(sender, call, warm_up))
    child.start()
    sender.close()  # so that a child that dies ends the wait
    growth = receiver.recv()
    child.join()
    return growth


def _measure_peak(sender, call, warm_up):
    if warm_up is not None:
        warm_up()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call()
    sender.send(_status("VmHWM") - before)


def _status(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{key} is not in /proc/self/status")


def spread(values, digits=2):
    """``median (least to largest)`` of several cases or seeds."""
    values = np.asarray(values, dtype=float)
    return (
        f"{np.median(values):.{digits}f} ({values.min():.{digits}f} to "
        f"{values.max():.{digits}f})"
    )


class Report:
    """Collects tables and goals; prints markdown and writes one JSON file."""

    def __init__(self, name, *, quick=False, only=None):
        # A part of the run must not pass for, or replace, the whole one.
        self.name = "-".join([name, *(only or ()), *(["quick"] if quick else [])])
        self.content = {
            "environment": {
                "python": platform.python_version(),
                "machine": platform.platform(),
                "processor": _processor(),
                "cores": os.cpu_count(),
                **{package: _installed(package) for package in PACKAGES},
            },
            "tables": {},
            "goals": [],
        }
        for key, value in self.content["environment"].items():
            print(f"{key}: {value}")

    def table(self, title, columns, rows):
        """Print a markdown table and keep it."""
        print(f"\n### {title}\n")
        print("| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns))
        for row in rows:
            print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
        self.content["tables"][title] = {"columns": columns, "rows": rows}

    def goal(self, text, measured, met):
        """One line for a claim: what was wanted, what was measured."""
        verdict = "met" if met else "NOT met"
        print(f"goal: {text}; measured: {measured}; {verdict}", flush=True)
        self.content["goals"].append(
            {"goal": text, "measured": measured, "met": bool(met)}
        )

    def write(self):
        """Write benchmarks/results/<name>.json and print its path."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(self.content, indent=1, default=str))
        print(f"\nresult: {path}")


def _processor():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def _installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def run_groups(name, description, groups, need_data):
    """The main function of a script of several groups of rows.

    ``need_data`` holds the names of those that are left out where no data are.
    """
    args = arguments(description, groups)
    report = Report(name, quick=args.quick, only=args.only)
    folder = data_folder()
    for group, call in groups.items():
        is_wanted = not args.only or group in args.only
        if is_wanted and (folder is not None or group not in need_data):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(report, folder, args.quick)
    report.write()
