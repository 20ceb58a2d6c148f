/**
 * A small chart of the last minutes: lines over time, no axes. The panel and
 * the notebook widget draw with it; it follows its element's width and the
 * theme's colours.
 */
import uPlot from 'uplot';

import type { Columns } from './models/history';

/** A colour is a theme's variable, with what stands in for it elsewhere. */
export type Colour = readonly [variables: readonly string[], fallback: string];

export const COLOURS = {
  normal: [['--jp-brand-color1', '--vscode-charts-blue'], '#1976d2'],
  busy: [['--jp-brand-color1', '--vscode-charts-blue'], '#1976d2'],
  saturated: [['--jp-warn-color1', '--vscode-charts-orange'], '#f57c00'],
  unknown: [['--jp-ui-font-color2', '--vscode-descriptionForeground'], '#777'],
  second: [['--jp-warn-color1', '--vscode-charts-orange'], '#f57c00']
} as const satisfies Record<string, Colour>;

/** Milliseconds for which a colour is taken to stay; a change of theme is heard at once. */
const LOOK_UP = 10000;

export interface ILine {
  colour: keyof typeof COLOURS;
  width?: number;
  /** Opacity of the line, and of the area beneath it. */
  alpha?: number;
  fill?: number;
  /** Lines of different scales have different heights; the default is a fraction. */
  scale?: 'fraction' | 'own';
}

export interface IChartOptions {
  height: number;
  lines: ILine[];
}

/** Redraws all charts when the theme changes. */
const drawn = new Set<Chart>();
let themes: MutationObserver | null = null;

function follow(chart: Chart): void {
  drawn.add(chart);
  themes ??= new MutationObserver(() => drawn.forEach(each => each.redraw()));
  themes.observe(document.body, {
    attributeFilter: ['class', 'data-jp-theme-name']
  });
}

function unfollow(chart: Chart): void {
  drawn.delete(chart);
  if (!drawn.size) {
    themes?.disconnect();
    themes = null;
  }
}

function resolve([variables, fallback]: Colour, style: CSSStyleDeclaration) {
  for (const variable of variables) {
    const value = style.getPropertyValue(variable).trim();
    if (value) {
      return value;
    }
  }
  return fallback;
}

export class Chart {
  constructor(
    private readonly _node: HTMLElement,
    private readonly _options: IChartOptions
  ) {
    this._lines = _options.lines;
    this._plot = new uPlot(
      this._plotOptions(),
      [[], ..._options.lines.map(() => [])],
      _node
    );
    this._sizes = new ResizeObserver(() => this._resize());
    this._sizes.observe(_node);
    follow(this);
  }

  /** Draw these columns, the newest at the right edge, so many seconds wide. */
  update(columns: Columns, window: number, lines?: ILine[]): void {
    const [times] = columns;
    this._lines = lines ?? this._lines;
    this._newest = times[times.length - 1] ?? 0;
    this._window = window;
    this._plot.setData(columns, true);
  }

  redraw(): void {
    this._colours = null;
    this._plot.redraw(false);
  }

  dispose(): void {
    unfollow(this);
    this._sizes.disconnect();
    this._plot.destroy();
  }

  private _resize(): void {
    const width = this._node.clientWidth;
    if (width > 0 && width !== this._plot.width) {
      this._plot.setSize({ width, height: this._options.height });
    }
  }

  private _plotOptions(): uPlot.Options {
    return {
      width: Math.max(1, this._node.clientWidth),
      height: this._options.height,
      padding: [1, 0, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      select: { show: false, left: 0, top: 0, width: 0, height: 0 },
      axes: [{ show: false }, { show: false }],
      scales: {
        x: {
          time: false,
          range: () => [this._newest - this._window, this._newest]
        },
        fraction: { range: [0, 1] },
        own: { range: (_, __, most) => [0, Math.max(1, (most ?? 0) * 1.1)] }
      },
      series: [{}, ...this._options.lines.map((_, at) => this._series(at))]
    };
  }

  private _series(at: number): uPlot.Series {
    const line = () => this._lines[at] ?? this._options.lines[at];
    return {
      scale: this._options.lines[at].scale ?? 'fraction',
      width: this._options.lines[at].width ?? 1.25,
      points: { show: false },
      alpha: this._options.lines[at].alpha ?? 1,
      stroke: () => this._colour(line().colour),
      fill: this._options.lines[at].fill
        ? () => this._faint(line().colour, this._options.lines[at].fill ?? 0)
        : undefined
    };
  }

  /** Colours are looked up now and then: asking for a style makes the browser compute all. */
  private _colour(name: keyof typeof COLOURS): string {
    const now = performance.now();
    if (!this._colours || now - this._lookedUp > LOOK_UP) {
      this._lookedUp = now;
      const style = getComputedStyle(this._node);
      this._colours = new Map(
        Object.entries(COLOURS).map(([each, colour]) => [
          each,
          resolve(colour, style)
        ])
      );
    }
    return this._colours.get(name) ?? COLOURS[name][1];
  }

  private _faint(name: keyof typeof COLOURS, alpha: number): string {
    return `color-mix(in srgb, ${this._colour(name)} ${alpha * 100}%, transparent)`;
  }

  private _lines: ILine[];
  private _newest = 0;
  private _window = 120;
  private _lookedUp = 0;
  private _colours: Map<string, string> | null = null;
  private readonly _plot: uPlot;
  private readonly _sizes: ResizeObserver;
}
