"""The review page: chains beside their images, decided with one key each. Served to this machine alone; `iadr1 expert-ad review` starts it."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadr1.errors import DatasetError
from iadr1.expert_ad.highlight import highlighted, picture
from iadr1.expert_ad.review import agreement, decide, hash_of, read_decisions, read_rows, record

if TYPE_CHECKING:
    from fastapi import FastAPI

HOSTS = ("127.0.0.1", "localhost")
LONGEST = 1024  # pixels of the longer side of a picture on the page
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; script-src "
)


def review_app(folder: Path) -> "FastAPI":
    """The page and its data for the build in `folder`; pictures are named by row, never by path."""
    from fastapi import FastAPI, HTTPException, Response
    from fastapi.concurrency import run_in_threadpool
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    rows, reviews = read_rows(folder), folder / "reviews"
    by_id = {row["id"]: row for row in rows}
    app = FastAPI(openapi_url=None)
    # A page of another site may know this address, but not under its own name.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))

    def page() -> Response:
        """The page itself, which may load nothing from elsewhere."""
        html = files("iadr1.expert_ad").joinpath("review.html").read_text(encoding="utf-8")
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": POLICY + _script_hash(html)})

    def listed(reviewer: str) -> list[dict[str, Any]]:
        """All chains, with what this person has decided about each."""
        decided = read_decisions(reviews).get(reviewer, {})
        return [_shown(row, decided) for row in rows]

    def shown(number: int, kind: str) -> Response:
        """A picture of a row; 404 for one that is not there."""
        if not 0 <= number < len(rows) or kind not in PICTURES or not (png := _picture(rows[number], kind)):
            raise HTTPException(404, "no such picture")
        return Response(png, media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    async def decided(body: dict[str, str]) -> dict[str, Any]:
        """The row with the decision that was made about it; 422 with the reason where it cannot be recorded."""
        row = by_id.get(body.get("id", ""))
        try:
            if row is None:
                raise DatasetError(f"no row {body.get('id')!r}. Load the page again.")
            made = decide(row, body.get("verdict", ""), chain=body.get("chain", ""), note=body.get("note", ""))
            await run_in_threadpool(record, reviews, body.get("reviewer", ""), [made])
        except DatasetError as error:
            raise HTTPException(422, str(error)) from error
        return {"verdict": made.verdict, "chain": made.chain, "note": made.note}

    app.get("/")(page)
    app.get("/rows")(listed)
    app.get("/pictures/{number}/{kind}")(shown)
    app.post("/decisions")(decided)
    app.get("/agreement")(lambda: agreement(read_decisions(reviews)))
    return app


def _query(row: Mapping[str, Any]) -> bytes:
    return picture(row["image"], longest=LONGEST)


def _overlay(row: Mapping[str, Any]) -> bytes | None:
    return highlighted(row["image"], row["mask"], longest=LONGEST) if row["mask"] else None


def _reference(row: Mapping[str, Any]) -> bytes | None:
    return picture(row["reference"], longest=LONGEST) if row["reference"] else None


PICTURES: dict[str, Callable[[Mapping[str, Any]], bytes | None]] = {"query": _query, "overlay": _overlay, "reference": _reference}


def _picture(row: Mapping[str, Any], kind: str) -> bytes | None:
    try:
        return PICTURES[kind](row)
    except DatasetError:  # the file has gone since the build
        return None


def _shown(row: Mapping[str, Any], decided: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a row, with this reviewer's decision about this very text."""
    made = decided.get(row["id"])
    names = ("id", "part", "category", "anomalous", "location", "type", "annotated_type", "comparison", "chain", "findings")
    valid = made is not None and made.hash == hash_of(row["chain"])
    decision = {name: getattr(made, name) for name in ("verdict", "chain", "note")} if valid else None
    return {name: row[name] for name in names} | {"mask": bool(row["mask"]), "reference": bool(row["reference"]), "decision": decision}


def _script_hash(html: str) -> str:
    """The page's own script, as a policy names it: no other script runs, whatever a chain says."""
    script = html.partition("<script>")[2].partition("</script>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
