"""The page around a report: its style, and a script that sorts tables. Nothing is loaded."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark;
  --ink: #111827; --page: #ffffff; --line: #d5d9de; --head: #f1f3f5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7eb; --page: #16191d; --line: #3a4149; --head: #23282e; }
}
body { margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left;
  white-space: nowrap; }
thead th { background: var(--head); }
td.figure { text-align: right; font-variant-numeric: tabular-nums; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid currentColor; }
th[aria-sort] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; border-radius: 4px; }
figcaption { font-size: 13px; } summary { cursor: pointer; padding: .3rem 0; }
pre { background: var(--head); padding: .7rem; overflow-x: auto; }
"""

SCRIPT = """
function key(row, column) {
  const cell = row.cells[column], value = cell.dataset.value;
  return value === undefined ? cell.textContent : Number(value);
}
function order(a, b, turn) {
  const words = [a, b].map((one) => typeof one === "string");
  if (words[0] && words[1]) return turn * a.localeCompare(b, undefined, { numeric: true });
  return words[0] || words[1] ? words[0] - words[1] : turn * (a - b);  // what is unknown is last
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    const rows = [...body.rows].sort((a, b) => order(key(a, column), key(b, column), turn));
    body.append(...rows);
  }));
}
"""


def page(title: str, body: str) -> str:
    """A whole page. The body is HTML, the title is not."""
    name = escape(title)
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>{name}</h1>\n{body}\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )
