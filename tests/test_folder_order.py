"""Each folder of the package imports only the folders above it."""

import ast
from pathlib import Path

import moka_peft

PACKAGE = Path(moka_peft.__file__).parent
ORDER = "routing ops tuner baselines composite data training evaluation analysis serving cli".split()


def imported_folders(path: Path) -> set[str]:
    folders = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            level = len(path.relative_to(PACKAGE).parts) - node.level
            base = ["moka_peft", *path.relative_to(PACKAGE).parts[:level]] if node.level else []
            names = [".".join([*base, node.module or ""])]
            names += [f"{names[0]}.{alias.name}" for alias in node.names]
        folders |= {name.split(".")[1] for name in names if name.startswith("moka_peft.")}
    return folders & set(ORDER)


def test_folders_import_only_those_above():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {folder}"
        for path in PACKAGE.rglob("*.py")
        for own in [path.relative_to(PACKAGE).parts[0]]
        for folder in imported_folders(path)
        if own in ORDER and ORDER.index(folder) > ORDER.index(own)
    ]
    assert wrong == []


def test_every_folder_has_its_place():
    assert {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"} <= set(ORDER)


def test_a_wrong_import_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "bad.py").write_text("from moka_peft.cli import main\nfrom ..tuner import layer\n")
    assert imported_folders(tmp_path / "ops" / "bad.py") == {"cli", "tuner"}
