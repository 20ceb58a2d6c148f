/**
 * A small chart of the last minutes without axes, for the panel and the notebook
 * widget.
 */
import type uPlot from 'uplot';

import type { Columns } from './models/history';
import { Colour, Palette } from './theme';
import { ThemedPlot } from './themedplot';
import { tips } from './tip';

export const COLOURS = {
  normal: [['--jp-brand-color1', '--vscode-charts-blue'], '#1976d2'],
  busy: [['--jp-brand-color1', '--vscode-charts-blue'], '#1976d2'],
  saturated: [['--jp-warn-color1', '--vscode-charts-orange'], '#f57c00'],
  unknown: [['--jp-ui-font-color2', '--vscode-descriptionForeground'], '#777'],
  second: [['--jp-warn-color1', '--vscode-charts-orange'], '#f57c00']
} as const satisfies Record<string, Colour>;

export interface ILine {
  colour: keyof typeof COLOURS;
  width?: number;
  /** Opacity of the line, and of the area beneath it. */
  alpha?: number;
  fill?: number;
  /** Lines with a scale of their own are drawn at different heights; the default is a fraction. */
  scale?: 'fraction' | 'own';
}

export interface IChartOptions {
  height: number;
  lines: ILine[];
  /** The text beside the pointer for the lines' values at one time. */
  hover?: (values: (number | null)[]) => string;
}

export class Chart {
  constructor(
    node: HTMLElement,
    private readonly _options: IChartOptions
  ) {
    this._lines = _options.lines;
    this._palette = new Palette(node, COLOURS);
    this._plot = new ThemedPlot(node, this._palette, this._plotOptions());
  }

  /** Draw the columns of the last `window` seconds, with the newest at the right edge. */
  update(columns: Columns, window: number, lines?: ILine[]): void {
    const [times] = columns;
    this._lines = lines ?? this._lines;
    this._newest = times[times.length - 1] ?? 0;
    this._window = window;
    this._plot.uplot.setData(columns, true);
  }

  dispose(): void {
    this._plot.dispose();
  }

  private _plotOptions(): Omit<uPlot.Options, 'width'> {
    const { hover } = this._options;
    return {
      height: this._options.height,
      padding: [1, 0, 0, 0],
      cursor: {
        show: hover !== undefined,
        y: false,
        points: { show: false },
        drag: { x: false, y: false, setScale: false }
      },
      plugins: hover
        ? [
            tips((index, plot) => {
              const values = plot.data
                .slice(1)
                .map(column => column[index] ?? null);
              return values.some(value => value !== null)
                ? [{ text: hover(values) }]
                : [];
            })
          ]
        : [],
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
      stroke: () => this._palette.get(line().colour),
      fill: this._options.lines[at].fill
        ? () =>
            this._palette.faint(
              line().colour,
              this._options.lines[at].fill ?? 0
            )
        : undefined
    };
  }

  private _lines: ILine[];
  private _newest = 0;
  private _window = 120;
  private readonly _palette: Palette<keyof typeof COLOURS>;
  private readonly _plot: ThemedPlot;
}
