"""What a results page looks like and does: its style sheet (light, dark, phone, print) and its script (sort, open)."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c1e21; --soft: #5b6168; --line: #d9dde1; --band: #f3f5f7;
  --link: #0062a3; --warn: #9a4a00; --warn-band: #fff4e5; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e7e9eb; --soft: #a3abb3; --line: #343a40;
  --band: #1e2327; --link: #7cc0f0; --warn: #ffc078; --warn-band: #33270f; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0 auto; max-width: 90rem; padding: 1.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
h1, h2, h3, li, p, summary, pre { overflow-wrap: anywhere; }
td, th { overflow-wrap: break-word; max-width: 26rem; }
td.text { min-width: 8rem; }
p, li { max-width: 62rem; }
ul { padding-left: 1.3rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; margin: .4rem 0 1.2rem; padding: 0;
  font-size: .95rem; }
.wide { overflow-x: auto; margin: .8rem 0 1.2rem; border: 1px solid var(--line); border-radius: 8px; max-width: 100%;
  width: fit-content; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .42rem .55rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line);
  min-width: 4rem; }
thead th { border-top: 0; background: var(--band); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 9rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: pre; }
thead th.n { white-space: normal; min-width: 3.2rem; }
tr.group th { background: var(--band); }
.warn td, .warn th { background: var(--warn-band); }
.mark { color: var(--warn); font-weight: 600; }
th button, td button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0;
  margin: 0; cursor: pointer; text-align: inherit; }
th button.sort::after { content: '\\00a0↕'; color: var(--soft); font-weight: 400; }
th[aria-sort=descending] button.sort::after { content: '\\00a0↓'; color: inherit; }
th[aria-sort=ascending] button.sort::after { content: '\\00a0↑'; color: inherit; }
tbody th.opens { position: relative; padding-left: 2rem; }
button.open { position: absolute; left: 0; width: 2rem; text-align: center; color: var(--link); }
button.open::before { content: '▸'; }
button.open[aria-expanded=true]::before { content: '▾'; }
tr.inner > td { padding: .2rem .75rem .8rem 2.2rem; background: var(--band); }
tr.inner table { font-size: .86rem; }
button:focus-visible, a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
figure { margin: 1rem 0 1.4rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 8px; padding: 6px; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .3rem; }
pre { background: var(--band); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem;
  overflow-x: auto; font-size: .86rem; line-height: 1.45; max-width: 100%; }
details { margin: .8rem 0; }
summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media screen and (max-width: 44rem) {
  body { padding: 1rem .9rem 3rem; font-size: 15px; }
  h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; }
  th, td { padding: .38rem .5rem; }
  table.sortable > thead th:first-child, table.sortable > tbody > tr:not(.inner):not(.group) > :first-child {
    position: sticky; left: 0; background: var(--band); max-width: 45vw; min-width: 7rem; }
}
@media print {
  :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --band: #f4f4f4; --link: #000; --warn: #000;
    --warn-band: #f4f4f4; color-scheme: light; }
  @page { size: A4; margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  nav, button.open { display: none; }
  th button.sort::after { content: '' !important; }
  h2 { margin-top: 1.2rem; } h1, h2, h3, summary { break-after: avoid; }
  .wide { overflow: visible; border: 0; width: auto; }
  table { font-size: 7.6pt; } th, td { padding: 2pt 4pt; min-width: 0; } tbody th { min-width: 0; }
  td.text { min-width: 0; } tbody th.opens { padding-left: 4pt; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 7.6pt; }
  figure, tr { break-inside: avoid; }
  figure img { max-height: 85mm; width: auto; border: 0; padding: 0; }
  h2 + .wide { break-inside: avoid; }
}
"""

SCRIPT = """
'use strict';
const value = (row, column) => {
  const cell = row.rows[0].cells[column], key = cell.dataset.key, text = cell.textContent.trim();
  return key !== undefined ? Number(key) : text === '' || text === '–' ? null : text;
};
const order = (a, b) => {
  if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;
  return typeof a === 'number' ? a - b : a.localeCompare(b, 'en', {numeric: true});
};
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector('button.sort').addEventListener('click', () => {
    const first = head.dataset.first || 'descending', was = head.getAttribute('aria-sort');
    const now = was === null ? first : was === 'descending' ? 'ascending' : 'descending';
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', now);
    let part = [];
    const flush = () => {
      part.map((body, place) => ({body, place, key: value(body, column)})).sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
        return (now === 'ascending' ? 1 : -1) * order(a.key, b.key) || a.place - b.place;
      }).forEach(({body}) => table.append(body));
      part = [];
    };
    for (const body of [...table.tBodies]) {
      if (body.classList.contains('group')) { flush(); table.append(body); } else part.push(body);
    }
    flush();
  }));
}
for (const button of document.querySelectorAll('button.open')) {
  const inner = button.closest('tbody').querySelector('tr.inner');
  inner.hidden = true;
  button.addEventListener('click', () => {
    inner.hidden = !inner.hidden;
    button.setAttribute('aria-expanded', String(!inner.hidden));
  });
}
"""
