/**
 * What both kinds of chart have in common: the plot has its element's width and
 * is drawn again when the theme changes.
 */
import uPlot from 'uplot';

import { Palette, followTheme } from './theme';

const NOTHING_TO_SELECT = { show: false, left: 0, top: 0, width: 0, height: 0 };

export class ThemedPlot {
  /** All options but the width; the plot has no data at first. */
  constructor(
    private readonly _node: HTMLElement,
    palette: Palette<string>,
    private readonly _options: Omit<uPlot.Options, 'width'>
  ) {
    this.uplot = new uPlot(
      {
        ..._options,
        width: Math.max(1, _node.clientWidth),
        legend: { show: false },
        select: NOTHING_TO_SELECT
      },
      [[], ..._options.series.slice(1).map(() => [])],
      _node
    );
    this._sizes = new ResizeObserver(() => this._resize());
    this._sizes.observe(_node);
    this._unfollow = followTheme(() => {
      palette.forget();
      this.uplot.redraw(false, true);
    });
  }

  readonly uplot: uPlot;

  dispose(): void {
    this._unfollow();
    this._sizes.disconnect();
    this.uplot.destroy();
  }

  private _resize(): void {
    const width = this._node.clientWidth;
    if (width > 0 && width !== this.uplot.width) {
      this.uplot.setSize({ width, height: this._options.height });
    }
  }

  private readonly _sizes: ResizeObserver;
  private readonly _unfollow: () => void;
}
