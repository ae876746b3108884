"""Data Docs, the pages of Great Expectations, made to say everything where no network is: it draws the list of pages, and the marks
of what holds and what fails, by scripts and fonts from the web.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = """<style>
body { font-family: sans-serif }
td, th { text-align: left; vertical-align: top; padding: 0.2em 1em 0.2em 0 }
td p { white-space: pre-line; margin: 0 0 0.5em }
td .fa-check-circle::after { content: " holds"; font: 0.9rem sans-serif }
td .fa-times::after { content: " fails"; font: 0.9rem sans-serif }
td .fa-exclamation-triangle::after { content: " cannot be judged"; font: 0.9rem sans-serif }
</style>
"""


def title(table: str) -> str:
    """A table's name as file names can have it."""
    return table.replace("/", "-")


def publish_at(context: Any, pages: Path) -> None:
    """Let a context of Great Expectations write its pages into a folder."""
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(pages.absolute())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    context.delete_data_docs_site("local_site")  # the default one, in a temporary folder
    context.add_data_docs_site(
        "report", {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store, "show_how_to_buttons": False}
    )


def complete(pages: Path, rows: Mapping[str, int], said: Mapping[str, Sequence[str]]) -> None:
    """Write the rows of each table and what was found in it above the index, and in words on each page what holds and what fails."""
    for page in pages.rglob("*.html"):
        _insert(page, "</head>", STYLE + "</head>")
    lines = "\n".join(_line(pages, table, count, said.get(table, ())) for table, count in rows.items())
    overview = f"<table>\n<tr><th>table</th><th>rows</th><th>found</th></tr>\n{lines}\n</table>"
    _insert(
        pages / "index.html",
        "<body>",
        f'<body>\n<div style="padding: 1em 3em"><h4>What is judged, and what was found</h4>\n{overview}\n</div>',
    )


def _line(pages: Path, table: str, rows: int, said: Sequence[str]) -> str:
    page = next((pages / "validations" / title(table)).rglob("*.html")).relative_to(pages).as_posix()
    found = "".join(f"<p>{escape(text)}</p>" for text in said) or "nothing"
    return f'<tr><td><a href="{escape(page)}">{escape(table)}</a></td><td>{rows:,}</td><td>{found}</td></tr>'


def _insert(page: Path, at: str, text: str) -> None:
    page.write_text(page.read_text(encoding="utf-8").replace(at, text, 1), encoding="utf-8")
