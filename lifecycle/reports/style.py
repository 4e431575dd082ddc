"""The style sheet of the pictures and sections: classes that begin with `lc-`, light, dark and on paper."""

from __future__ import annotations

from typing import Final

_LIGHT: Final = """
  --lc-ground: #ffffff; --lc-raised: #f4f6f8; --lc-line: #cdd5dd; --lc-ink: #16202b; --lc-soft: #4a5866;
  --lc-ours: #0b5394; --lc-provider: #a04b00; --lc-odd: #b3202c; --lc-good: #1d6b3c;
  --lc-1: #0b5394; --lc-2: #4f93d2; --lc-3: #2b7a78; --lc-4: #7ab8a8; --lc-5: #6b4c9a; --lc-6: #b39bd6;
  --lc-7: #8a97a5; --lc-8: #d9822b;
"""
_DARK: Final = """
  --lc-ground: #12171d; --lc-raised: #1b232c; --lc-line: #3a4754; --lc-ink: #e8edf2; --lc-soft: #aab6c2;
  --lc-ours: #8cc4ff; --lc-provider: #f0a868; --lc-odd: #ff9c92; --lc-good: #7fd3a0;
  --lc-1: #8cc4ff; --lc-2: #3f7fbf; --lc-3: #7fd0c5; --lc-4: #3c8a7e; --lc-5: #c3a6f0; --lc-6: #8062b5;
  --lc-7: #8a97a5; --lc-8: #f0a868;
"""

CSS: Final = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
@media print {{ :root {{ color-scheme: light; {_LIGHT} }} }}
.lc-section {{ margin: 2.75rem 0 0; color: var(--lc-ink); }}
.lc-section h2 {{ font-size: 1.25rem; line-height: 1.3; margin: 0 0 .35rem; }}
.lc-section h3 {{ font-size: 1rem; margin: 1.75rem 0 .35rem; }}
.lc-says {{ margin: 0 0 1rem; max-width: 46rem; line-height: 1.55; overflow-wrap: anywhere; }}
.lc-note, .lc-empty {{ color: var(--lc-soft); font-size: .875rem; max-width: 46rem; }}
.lc-empty {{ border: 1px dashed var(--lc-line); border-radius: 8px; padding: .9rem 1rem; margin: .5rem 0; }}
.lc-tiles {{ list-style: none; margin: 0 0 1rem; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(min(10.5rem, 100%), 1fr)); }}
.lc-tile {{ border: 1px solid var(--lc-line); border-radius: 8px; padding: .7rem .85rem .6rem; min-width: 0;
  display: flex; flex-direction: column; gap: .15rem; background: var(--lc-raised); break-inside: avoid; }}
.lc-tile-name {{ font-size: .8125rem; color: var(--lc-soft); }}
.lc-tile-value {{ font-size: 1.6rem; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }}
.lc-tile-more {{ font-size: .8125rem; color: var(--lc-soft); }}
.lc-tile .lc-svg {{ width: 100%; max-width: 132px; height: auto; margin-top: auto; }}
.lc-alert {{ border-color: var(--lc-odd); border-left-width: 4px; }}
.lc-figure {{ margin: 0 0 .75rem; overflow-x: auto; border: 1px solid var(--lc-line); border-radius: 8px;
  padding: .75rem; background: var(--lc-ground); break-inside: avoid; }}
.lc-figure .lc-svg {{ display: block; width: 100%; height: auto; }}
.lc-wide .lc-svg {{ min-width: 46rem; max-width: 75rem; margin: 0 auto; }}
.lc-chart {{ max-width: 44rem; }}
.lc-chart .lc-svg {{ min-width: 30rem; }}
.lc-pair {{ display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fit, minmax(min(32rem, 100%), 1fr)); }}
.lc-pair > * {{ min-width: 0; }}
.lc-details {{ margin: 0 0 .75rem; }}
.lc-details summary {{ cursor: pointer; color: var(--lc-ours); width: max-content; max-width: 100%; padding: .2rem 0; }}
.lc-scroll {{ overflow-x: auto; width: fit-content; max-width: 100%; margin: .5rem 0 1rem;
  border: 1px solid var(--lc-line); border-radius: 8px; }}
.lc-table {{ border-collapse: collapse; width: 100%; font-size: .875rem; line-height: 1.4; }}
.lc-table caption {{ text-align: left; padding: .5rem .7rem; color: var(--lc-soft); }}
.lc-table th, .lc-table td {{ text-align: left; vertical-align: top; padding: .35rem .7rem;
  border-top: 1px solid var(--lc-line); overflow-wrap: break-word; }}
.lc-table thead th {{ background: var(--lc-raised); white-space: nowrap; }}
.lc-table tbody th {{ font-weight: 500; white-space: nowrap; }}
.lc-table .lc-number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.lc-text {{ fill: var(--lc-ink); font-family: system-ui, sans-serif; }}
.lc-quiet {{ fill: var(--lc-soft); }}
.lc-strong {{ font-weight: 600; }}
.lc-grid {{ stroke: var(--lc-line); stroke-width: 1; fill: none; }}
.lc-part {{ stroke: var(--lc-ground); stroke-width: 1; }}
.lc-line {{ fill: none; stroke-linejoin: round; stroke-linecap: round; }}
.lc-line.lc-ours {{ stroke: var(--lc-ours); }}
.lc-line.lc-provider {{ stroke: var(--lc-provider); stroke-dasharray: 7 5; }}
.lc-dot.lc-ours {{ fill: var(--lc-ours); }}
.lc-dot.lc-provider {{ fill: var(--lc-provider); }}
.lc-under {{ fill: var(--lc-ours); fill-opacity: .14; }}
rect.lc-ours {{ fill: var(--lc-ours); }}
rect.lc-provider {{ fill: var(--lc-provider); }}
rect.lc-odd {{ fill: var(--lc-odd); }}
.lc-1 {{ fill: var(--lc-1); }} .lc-2 {{ fill: var(--lc-2); }} .lc-3 {{ fill: var(--lc-3); }}
.lc-4 {{ fill: var(--lc-4); }} .lc-5 {{ fill: var(--lc-5); }} .lc-6 {{ fill: var(--lc-6); }}
.lc-7 {{ fill: var(--lc-7); }} .lc-8 {{ fill: var(--lc-8); }}
.lc-status {{ fill: var(--lc-raised); stroke: var(--lc-soft); stroke-width: 1.4; }}
.lc-final {{ stroke-width: 3; }}
.lc-unknown {{ stroke-dasharray: 5 4; }}
.lc-lane {{ fill: none; stroke: var(--lc-line); stroke-dasharray: 3 5; }}
.lc-arrow {{ fill: none; stroke-opacity: .8; }}
.lc-arrow-ours.lc-arrow {{ stroke: var(--lc-ours); }}
.lc-arrow-provider.lc-arrow {{ stroke: var(--lc-provider); stroke-dasharray: 9 6; }}
.lc-arrow-odd.lc-arrow {{ stroke: var(--lc-odd); stroke-dasharray: 2.5 4.5; }}
.lc-head.lc-arrow-ours {{ fill: var(--lc-ours); }}
.lc-head.lc-arrow-provider {{ fill: var(--lc-provider); }}
.lc-head.lc-arrow-odd {{ fill: var(--lc-odd); }}
.lc-count {{ paint-order: stroke; stroke: var(--lc-ground); stroke-width: 5px; stroke-linejoin: round; font-weight: 600;
  font-variant-numeric: tabular-nums; }}
.lc-ours-count {{ fill: var(--lc-ours); }}
.lc-provider-count {{ fill: var(--lc-provider); }}
.lc-odd-count {{ fill: var(--lc-odd); }}
@media print {{
  .lc-section h2, .lc-section h3, .lc-says {{ break-after: avoid; }}
  .lc-figure, .lc-scroll {{ overflow: visible; border-color: #999999; }}
  .lc-wide .lc-svg, .lc-chart .lc-svg {{ min-width: 0; max-height: 17cm; }}
  .lc-table {{ font-size: 7.5pt; }}
  .lc-table th, .lc-table td {{ padding: .2rem .4rem; }}
  .lc-table thead th, .lc-table .lc-number {{ white-space: normal; }}
  .lc-table tr {{ break-inside: avoid; }}
  .lc-table thead {{ display: table-header-group; }}
  .lc-details::details-content {{ content-visibility: visible; block-size: auto; }}
  .lc-details > :not(summary) {{ display: block; }}
}}
"""
"""No rule needs an inline style, so a page may forbid them. Colours of text keep a contrast of 4.5 to 1 or more."""
