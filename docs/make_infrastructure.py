"""Writes docs/infrastructure.md: the page with the cost table of infra/costs.yaml. Run `python docs/make_infrastructure.py`."""

import re
from pathlib import Path
from typing import Any

import yaml

from iadr1.report_tables import table

HERE = Path(__file__).parent
INFRA = HERE.parent / "infra"


def document() -> str:
    """The page, with its tables filled in."""
    costs = yaml.safe_load((INFRA / "costs.yaml").read_text(encoding="utf-8"))
    text = (HERE / "infrastructure.template.md").read_text(encoding="utf-8")
    for name, value in {
        "always": _bill(costs["always"], "all of it, each month"),
        "release": _bill(costs["release"], "a release"),
        "months": _months(costs),
        "secret_keys": ", ".join(f"`{key}`" for key in secret_keys()),
        "variables": _variables(),
    }.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def secret_keys() -> list[str]:
    """The keys of the secret that the manifests read."""
    texts = (path.read_text(encoding="utf-8") for path in (INFRA / "k8s").rglob("*.yaml"))
    return sorted({key for text in texts for key in re.findall(r"secretKeyRef: \{name: iadr1, key: ([a-z-]+)\}", text)})


def total(items: list[dict[str, Any]]) -> float:
    """Dollars of a bill."""
    return float(sum(item["amount"] * item["price"] for item in items))


def _bill(items: list[dict[str, Any]], sum_of: str) -> str:
    rows = [[i["what"], f"{i['amount']:g} {i['unit']}", f"{i['price']:.4g}", f"{i['amount'] * i['price']:.2f}"] for i in items]
    return table(["what", "how much", "price", "dollars"], [*rows, [f"**{sum_of}**", "", "", f"**{total(items):.2f}**"]])


def _months(costs: dict[str, Any]) -> str:
    always, each = total(costs["always"]), total(costs["release"])
    rows = [[str(count), f"{always:.0f} + {count} x {each:.2f}", f"{always + count * each:.0f}"] for count in costs["releases"]]
    return table(["releases a month", "", "dollars a month"], rows)


def _variables() -> str:
    found = re.findall(r'variable "(\w+)" \{(.*?)\n\}', (INFRA / "terraform" / "variables.tf").read_text(encoding="utf-8"), re.DOTALL)
    rows = []
    for name, body in found:
        told, default = re.search(r'description = "(.*)"', body), re.search(r"default += (.*)", body)
        assert told is not None, f"variables.tf: {name} has no description"
        rows.append([f"`{name}`", told[1], f"`{default[1]}`" if default else "to be given"])
    return table(["variable", "", "default"], rows)


if __name__ == "__main__":
    (HERE / "infrastructure.md").write_text(document(), encoding="utf-8")
