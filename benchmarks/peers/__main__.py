"""`python -m benchmarks.peers --peers FOLDER --python VENV/bin/python`: all engines beside each other.

    python3 -m venv /var/tmp/peers && /var/tmp/peers/bin/pip install -r FOLDER/requirements.txt -e .
    python -m benchmarks.peers --peers FOLDER --python /var/tmp/peers/bin/python

Every kind of work is done by each engine in turn, then again, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from benchmarks.peers.settings import BEST, environment
from benchmarks.peers.table import write
from benchmarks.server import SETTINGS
from pgflow.embedded import Postgres

WORK = ["W1", "SEQ", "W2", "W3", "W4", "W5", "W6"]
"""Kinds of work: see the folder's README."""


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="pgflow beside other engines")
    parser.add_argument("--peers", type=Path, required=True, help="the folder with the peers' runners and their run.py")
    parser.add_argument("--python", type=Path, required=True, help="a Python that has the peers and pgflow installed")
    parser.add_argument("--only", default=",".join(BEST), help="which engines, by name, with commas")
    parser.add_argument("--work", default=",".join(WORK), help="which kinds of work, with commas")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--results", type=Path, default=Path("bench-results") / "peers", help="where to write")
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    names = given.only.split(",")
    with tempfile.TemporaryDirectory(prefix="pgflow-peers-") as place, socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
        free.close()
        gather(given.peers, Path(place) / "peers")
        settings = {**SETTINGS, "listen_addresses": "127.0.0.1", "port": port}
        with Postgres(settings=settings):
            for work in given.work.split(","):
                for number in range(1, given.repeats + 1):
                    for name in names:
                        run(given.python, Path(place), given.results.resolve(), port, name, work, number)
    print(write(given.results, names))


def gather(folder: Path, place: Path) -> None:
    """Copy the peers' runners and pgflow's into one package: the driver looks for them beside itself."""
    place.mkdir()
    for file in [*folder.glob("*.py"), Path(__file__).with_name("pgflow_peer.py")]:
        shutil.copy(file, place / file.name)


def run(python: Path, place: Path, results: Path, port: str, name: str, work: str, number: int) -> None:
    """One engine, one kind of work, once. An engine that fails is reported and left out of the table."""
    print(f"{work} round {number}: {name}", flush=True)
    ended = subprocess.run(
        [
            python.absolute(),
            "-W",
            "ignore",
            "-m",
            "peers.run",
            "--peer",
            f"{name}_peer",
            "--w",
            work,
            "--repeats",
            "1",
            "--tag",
            f"-{number}",
        ],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": str(place),
            "BENCH_PORT": port,
            "BENCH_RESULTS": str(results),
            **environment(name, work),
        },
    )
    if ended.returncode:
        print(f"{name} ended with {ended.returncode} at {work}; its log is in {results}", flush=True)


if __name__ == "__main__":
    main()
