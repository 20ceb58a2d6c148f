/**
 * A chart with axes, for the dashboard: lines over clock time, with the values
 * under the pointer. The arrow keys also move the pointer.
 */
import uPlot from 'uplot';

import { number, percent } from './models/format';
import type { Column } from './models/timeline';
import { Colour, Palette } from './theme';
import { ThemedPlot } from './themedplot';
import { ITipRow, clock, tips } from './tip';

/** Lines with a colour of their own; if there are more, all but the first are grey. */
export const OWN_COLOURS = 8;

const series = (at: number, fallback: string): Colour => [
  [`--jp-EafInference-line${at}`],
  fallback
];

const COLOURS = {
  line1: series(1, '#1976d2'),
  line2: series(2, '#d9620a'),
  line3: series(3, '#2e8b3e'),
  line4: series(4, '#8e44ad'),
  line5: series(5, '#c2185b'),
  line6: series(6, '#00838f'),
  line7: series(7, '#795548'),
  line8: series(8, '#827717'),
  grey: [['--jp-ui-font-color2'], '#777'],
  text: [['--jp-ui-font-color1'], '#222']
} as const satisfies Record<string, Colour>;

type ColourName = keyof typeof COLOURS;
export type LineColour = Exclude<ColourName, 'text'>;

export interface IPlotLine {
  key: string;
  name: string;
  colour: LineColour;
  /** Faint for one line of many. */
  kind?: 'plain' | 'bold' | 'faint';
}

/** How values are written, and the axis' smallest range. */
export interface IUnit {
  kind: 'fraction' | 'own';
  text: (value: number | null) => string;
  /** On the axis, without the unit, which is in the heading. */
  tick: (value: number) => string;
}

const TICK = new Intl.NumberFormat('en', { maximumFractionDigits: 3 });
/** Ticks are round numbers and are written in full: 0.25, 2,500. */
const tick = (value: number): string =>
  value < 1e6 ? TICK.format(value) : number(value);

const withUnit =
  (unit: string) =>
  (value: number | null): string =>
    value === null ? number(value) : `${number(value)} ${unit}`;
const own = (unit: string): IUnit => ({
  kind: 'own',
  text: withUnit(unit),
  tick
});

export const UNITS = {
  fraction: { kind: 'fraction', text: percent, tick: percent },
  gibibytes: own('GiB'),
  milliseconds: own('ms'),
  rate: own('jets/s'),
  requests: { kind: 'own', text: number, tick }
} as const satisfies Record<string, IUnit>;

export interface IPlotOptions {
  lines: readonly IPlotLine[];
  unit: IUnit;
  height: number;
  /** Charts of one group share a pointer. */
  group: string;
  /** Announce the values that the arrow keys lead to, for screen readers. */
  announce: (text: string) => void;
}

/** The most rows of a tip; with more lines, only the first and those nearest to the pointer are named. */
const TIP_ROWS = 9;
const NEAREST = 3;
const LONGEST_NAME = 48;
/** The longest range, in seconds, whose axis shows seconds. */
const WITH_SECONDS = 60;
/** Seconds between two ticks. */
const SECONDS = [5, 10, 15, 20, 30, 60];
const MINUTES = [1, 2, 5, 10, 15, 20, 30, 60].map(minutes => 60 * minutes);
const FONT = '11px';

export class Plot {
  constructor(
    private readonly _node: HTMLElement,
    private readonly _options: IPlotOptions
  ) {
    this._palette = new Palette(_node, COLOURS);
    this._plot = new ThemedPlot(_node, this._palette, this._plotOptions());
    _node.addEventListener('keydown', this._onKey);
    _node.addEventListener('blur', this._leave);
  }

  /** Draw the last `range` seconds of the columns. */
  update(times: readonly number[], columns: Column[], range: number): void {
    this._range = range;
    this._newest = times[times.length - 1] ?? Date.now() / 1000;
    this._plot.uplot.setData([times as number[], ...columns], true);
  }

  dispose(): void {
    this._node.removeEventListener('keydown', this._onKey);
    this._node.removeEventListener('blur', this._leave);
    this._plot.dispose();
  }

  private _plotOptions(): Omit<uPlot.Options, 'width'> {
    const { lines, unit, height, group } = this._options;
    const axis = {
      stroke: () => this._palette.get('text'),
      grid: { stroke: () => this._palette.faint('text', 0.14), width: 1 },
      ticks: { show: false },
      font: `${FONT} ${getComputedStyle(this._node).fontFamily}`
    };
    return {
      height,
      padding: [8, 12, 0, 0],
      cursor: {
        y: false,
        drag: { x: false, y: false, setScale: false },
        points: { show: lines.length <= TIP_ROWS, size: 6 },
        sync: { key: group }
      },
      plugins: [tips((index, plot) => this._rows(index, plot))],
      axes: [
        {
          ...axis,
          size: 22,
          gap: 6,
          space: () => (this._range <= WITH_SECONDS ? 76 : 52),
          incrs: () => (this._range <= WITH_SECONDS ? SECONDS : MINUTES),
          values: (_, splits) =>
            splits.map(split =>
              this._range <= WITH_SECONDS
                ? clock(split)
                : clock(split).slice(0, -3)
            )
        },
        {
          ...axis,
          scale: 'y',
          size: 52,
          gap: 6,
          space: 28,
          values: (_, splits) => splits.map(unit.tick)
        }
      ],
      scales: {
        x: {
          time: true,
          range: () => [this._newest - this._range, this._newest]
        },
        y: {
          range:
            unit.kind === 'fraction'
              ? [0, 1]
              : (_, __, most) =>
                  uPlot.rangeNum(0, Math.max(1, most ?? 0), 0.1, true)
        }
      },
      series: [{}, ...lines.map(line => this._series(line))]
    };
  }

  private _series({ colour, kind = 'plain' }: IPlotLine): uPlot.Series {
    const isAlone = this._options.lines.length === 1;
    return {
      scale: 'y',
      width: kind === 'bold' ? 2.5 : kind === 'faint' ? 1 : 1.5,
      alpha: kind === 'faint' ? 0.35 : 1,
      points: { show: false },
      stroke: () => this._palette.get(colour),
      fill: isAlone ? () => this._palette.faint(colour, 0.12) : undefined
    };
  }

  /** The lines' values in descending order; of many lines, the first and those nearest to the pointer. */
  private _rows(index: number, plot: uPlot): ITipRow[] {
    const { lines, unit } = this._options;
    const known = lines
      .map((line, at) => ({ line, value: plot.data[at + 1][index] ?? null }))
      .filter(
        (each): each is { line: IPlotLine; value: number } =>
          each.value !== null
      );
    const shown =
      lines.length <= TIP_ROWS
        ? known.sort((a, b) => b.value - a.value)
        : nearest(known, plot.posToVal(plot.cursor.top ?? 0, 'y'));
    return shown.map(({ line, value }) => ({
      text: `${short(line.name)}  ${unit.text(value)}`,
      colour: this._palette.get(line.colour)
    }));
  }

  private readonly _onKey = (event: KeyboardEvent): void => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const plot = this._plot.uplot;
    const times = plot.data[0];
    if (event.key === 'Escape') {
      this._leave();
    } else if (steps && times.length) {
      event.preventDefault();
      const { idx, left = -1 } = plot.cursor;
      const from = left >= 0 && typeof idx === 'number' ? idx : times.length;
      const index = Math.max(0, Math.min(times.length - 1, from + steps));
      plot.setCursor({
        left: Math.max(0, plot.valToPos(times[index], 'x')),
        top: plot.over.clientHeight / 2
      });
      const rows = this._rows(index, plot).map(row => row.text);
      this._options.announce([clock(times[index]), ...rows].join(', '));
    }
  };

  private readonly _leave = (): void => {
    this._plot.uplot.setCursor({ left: -10, top: -10 });
  };

  private _range = 300;
  private _newest = 0;
  private readonly _palette: Palette<ColourName>;
  private readonly _plot: ThemedPlot;
}

function nearest(
  known: { line: IPlotLine; value: number }[],
  to: number
): { line: IPlotLine; value: number }[] {
  const [first, ...others] = known;
  const byDistance = others.sort(
    (a, b) => Math.abs(a.value - to) - Math.abs(b.value - to)
  );
  return first ? [first, ...byDistance.slice(0, NEAREST)] : [];
}

function short(name: string): string {
  return name.length > LONGEST_NAME
    ? `${name.slice(0, LONGEST_NAME - 1)}…`
    : name;
}
