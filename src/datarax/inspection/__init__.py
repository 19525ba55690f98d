"""What is in the records of some shards, as text and as a page."""

from datarax.inspection.report import write_html
from datarax.inspection.survey import Survey, survey
from datarax.inspection.text import as_text

__all__ = ["Survey", "as_text", "survey", "write_html"]
