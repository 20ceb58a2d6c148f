/**
 * The values under the pointer, in a small box over a chart.
 */
import type uPlot from 'uplot';

/** One text, with the colour of the line that it belongs to. */
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

/** "12:31:05" of seconds since the epoch, by this browser's clock. */
export function clock(seconds: number): string {
  return TIME.format(seconds * 1000);
}

/** How far a value may be from the pointer, in pixels, unless values are farther apart. */
const REACH = 16;

/** Pixels between the pointer and a value, less those between this value and the next. */
function distance(plot: uPlot, index: number): number {
  const times = plot.data[0];
  const at = (time: number) => plot.valToPos(time, 'x');
  const off = Math.abs(at(times[index]) - (plot.cursor.left ?? 0));
  const neighbour = times[index + 1] ?? times[index - 1] ?? times[index];
  return off - Math.abs(at(neighbour) - at(times[index]));
}

/** Shows the time under the pointer and these rows; nothing where there are none. */
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
        // of several charts whose cursors move together only one is pointed at
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

/** Texts come from servers: they are never markup. */
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
