"""The authors' released checkpoints, read into adapters of this library and written back."""

from moka_peft.training.authors.exporting import Exported, export_adapter
from moka_peft.training.authors.forms import FORMS
from moka_peft.training.authors.importing import Imported, import_adapter

__all__ = ["FORMS", "Exported", "Imported", "export_adapter", "import_adapter"]
