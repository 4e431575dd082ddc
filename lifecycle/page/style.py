"""The style sheet of the page; the pictures bring their own. No inline styles: the content security policy has none."""

from __future__ import annotations

from typing import Final

from lifecycle.reports import sections

_PAGE: Final = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--lc-ground); color: var(--lc-ink); font: 1rem/1.5 system-ui, sans-serif; }
a { color: var(--lc-ours); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--lc-ours); outline-offset: 2px; border-radius: 2px; }
main:focus { outline: none; }
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: .5rem; z-index: 2; background: var(--lc-ground); padding: .5rem; }
body > header { background: var(--lc-raised); border-bottom: 1px solid var(--lc-line); }
.bar, main, body > footer { max-width: 80rem; margin: 0 auto; padding: 0 clamp(.75rem, 3vw, 2rem); }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem 1.5rem; padding-block: .6rem; }
.brand { font-weight: 700; color: var(--lc-ink); text-decoration: none; }
.bar nav { display: flex; gap: 1.25rem; flex: 1; }
.bar nav a { padding: .25rem 0; text-decoration: none; border-bottom: 2px solid transparent; }
.bar nav a[aria-current] { color: var(--lc-ink); font-weight: 600; border-color: var(--lc-ours); }
main { padding-block: 1rem 2rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; }
.note, small, body > footer { color: var(--lc-soft); font-size: .875rem; }
body > footer { border-top: 1px solid var(--lc-line); margin-top: 2rem; padding-block: 1rem; }
button, input, select { font: inherit; color: inherit; }
button {
  background: var(--lc-ours); color: var(--lc-ground); border: 1px solid var(--lc-ours); border-radius: 6px;
  padding: .45rem 1.1rem; font-weight: 600; cursor: pointer;
}
button.quiet { background: transparent; color: var(--lc-ours); border-color: var(--lc-line); padding: .2rem .7rem; }
input, select {
  width: 100%; min-width: 0; height: 2.4rem; padding: .3rem .55rem; background: var(--lc-ground);
  border: 1px solid var(--lc-soft); border-radius: 6px;
}
[aria-invalid] { border: 2px solid var(--lc-odd); }
label { display: block; font-weight: 600; font-size: .875rem; margin-bottom: .15rem; }
.filters { background: var(--lc-raised); border: 1px solid var(--lc-line); border-radius: 8px; padding: .9rem 1rem 0; }
.fields { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: .8rem 1rem; }
.filters details { margin-top: .8rem; }
.filters summary { cursor: pointer; color: var(--lc-ours); width: max-content; }
.filters details .fields { margin-top: .6rem; }
.windows { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: 0 0 .75rem; }
.sign-in { max-width: 26rem; display: grid; gap: .6rem; }
[role=alert] { border-left: 4px solid var(--lc-odd); padding: .4rem .8rem; background: var(--lc-raised); }
.empty {
  padding: 2rem 1rem; text-align: center; color: var(--lc-soft); border: 1px dashed var(--lc-line); border-radius: 8px;
}
.scroll {
  position: relative; overflow-x: auto; margin-top: 1.25rem; border: 1px solid var(--lc-line); border-radius: 8px;
}
.scroll table { border-collapse: collapse; width: 100%; font-size: .875rem; }
.scroll caption { text-align: left; padding: .5rem .6rem; color: var(--lc-soft); }
.scroll th, .scroll td {
  text-align: left; vertical-align: top; padding: .4rem .6rem; border-top: 1px solid var(--lc-line);
}
.scroll thead th { background: var(--lc-raised); white-space: nowrap; }
.scroll tbody th { font-weight: 400; }
.scroll tbody tr:hover { background: var(--lc-raised); }
.scroll small { display: block; }
.scroll time, .id { white-space: nowrap; font-variant-numeric: tabular-nums; }
.id { font-family: ui-monospace, monospace; font-size: .92em; }
h1 .id { white-space: normal; }
.status { white-space: nowrap; border: 1px solid var(--lc-line); border-radius: 4px; padding: 0 .35rem; }
.paging { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin: 1rem 0; }
.paging [aria-disabled] { color: var(--lc-soft); }
dl { margin: 0; }
dt { color: var(--lc-soft); font-size: .8125rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(12rem, 100%), 1fr)); gap: .8rem 1.5rem; }
.facts time { white-space: nowrap; }
.timeline { list-style: none; margin: 1rem 0; padding: 0 0 0 1.1rem; border-left: 2px solid var(--lc-line); }
.step { position: relative; padding: 0 0 1.4rem .4rem; }
.step::before {
  content: ""; position: absolute; left: calc(-1.1rem - 7px); top: .4rem; width: 12px; height: 12px; border-radius: 50%;
  background: var(--lc-ground); border: 3px solid var(--lc-soft);
}
.step.moved::before { background: var(--lc-ours); border-color: var(--lc-ours); }
.step.no::before { border-color: var(--lc-odd); border-radius: 2px; }
.step.doubt::before {
  border-color: var(--lc-provider); background: var(--lc-provider); border-radius: 2px; transform: rotate(45deg);
}
.step.no h3 { color: var(--lc-odd); }
.step.doubt h3 { color: var(--lc-provider); }
.step p { margin: .15rem 0; }
.step dl { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; margin-top: .3rem; }
.when, .gap { color: var(--lc-soft); font-size: .875rem; }
.gap { margin-left: .5rem; }
@media (max-width: 50rem) {
  .fields, .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .8rem; }
  .facts time { white-space: normal; }
  .events, .events tbody, .events tr, .events td, .events th { display: block; }
  .events caption { display: block; }
  .events thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .events tbody tr { border-top: 1px solid var(--lc-line); padding: .5rem .6rem; }
  .events tbody td, .events tbody th {
    display: grid; grid-template-columns: 7.5rem 1fr; border: 0; padding: .1rem 0; overflow-wrap: anywhere;
  }
  .events td:empty { display: none; }
  .events tbody [data-head]::before { content: attr(data-head); color: var(--lc-soft); }
}
@media print { body > header, .filters, .windows, .paging, .skip { display: none; } .scroll { overflow: visible; } }
"""

SHEET: Final = sections.CSS + _PAGE
"""The colours are those of the sections."""
