/**
 * A tooltip over a chart with the values under the pointer.
 */
import type uPlot from 'uplot';

/** A text with the colour of its line. */
export interface ITipRow {
  text: string;
  colour?: string;
}

const TIME = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23'
});

/** Seconds since the epoch as "12:31:05", in this browser's time zone. */
export function clock(seconds: number): string {
  return TIME.format(seconds * 1000);
}

/** The largest distance from the pointer to a value, in pixels, unless values are farther apart. */
const REACH = 16;

/** Pixels between the pointer and a value, minus those between this value and the next. */
function distance(plot: uPlot, index: number): number {
  const times = plot.data[0];
  const at = (time: number) => plot.valToPos(time, 'x');
  const off = Math.abs(at(times[index]) - (plot.cursor.left ?? 0));
  const neighbour = times[index + 1] ?? times[index - 1] ?? times[index];
  return off - Math.abs(at(neighbour) - at(times[index]));
}

/** A plugin that shows the time under the pointer and these rows, if there are any. */
export function tips(
  rows: (index: number, plot: uPlot) => readonly ITipRow[]
): uPlot.Plugin {
  const tip = document.createElement('div');
  tip.className = 'jp-EafInference-tip';
  tip.hidden = true;
  return {
    hooks: {
      init: plot => void plot.over.appendChild(tip),
      setCursor: plot => {
        const { idx, left = -1 } = plot.cursor;
        const isNear = typeof idx === 'number' && distance(plot, idx) <= REACH;
        // charts of a group share the cursor, but only one of them is under the pointer
        const isMeant = plot.root.parentElement?.matches(':hover, :focus');
        const found = isNear && isMeant && left >= 0 ? rows(idx, plot) : [];
        tip.hidden = !found.length;
        if (found.length && isNear) {
          show(tip, [{ text: clock(plot.data[0][idx]) }, ...found]);
          const isRight = left > plot.over.clientWidth / 2;
          tip.style.left = isRight ? 'auto' : `${left + 8}px`;
          tip.style.right = isRight
            ? `${plot.over.clientWidth - left + 8}px`
            : 'auto';
        }
      }
    }
  };
}

/** Texts come from servers, so they are never inserted as markup. */
function show(tip: HTMLElement, rows: readonly ITipRow[]): void {
  tip.replaceChildren(
    ...rows.map(({ text, colour }) => {
      const row = document.createElement('div');
      if (colour) {
        const mark = document.createElement('i');
        mark.style.background = colour;
        row.append(mark);
      }
      row.append(text);
      return row;
    })
  );
}
