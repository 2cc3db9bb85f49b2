"""How large files and directories are."""

from pathlib import Path


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a directory; what goes meanwhile counts nothing."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(_bytes(file) for file in files)


def _bytes(file: Path) -> int:
    try:
        return 0 if file.is_dir() and not file.is_symlink() else file.lstat().st_size
    except OSError:
        return 0


def readable(size: float) -> str:
    """Bytes as people read them: 3.6 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
