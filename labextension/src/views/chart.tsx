/**
 * A chart inside React: made once, and given new columns.
 */
import React from 'react';

import { Chart, ILine } from '../chart';
import { percent } from '../models/format';
import type { Columns } from '../models/history';

const ofOne = (values: (number | null)[]): string => percent(values[0]);

export function Lines(props: {
  label: string;
  columns: Columns;
  window: number;
  lines: ILine[];
  height?: number;
  /** What to say of the lines' values at one time. */
  hover?: (values: (number | null)[]) => string;
}): JSX.Element {
  const node = React.useRef<HTMLDivElement>(null);
  const chart = React.useRef<Chart | null>(null);
  const { columns, window, lines, height = 34, hover = ofOne } = props;
  const count = lines.length;

  // lines are fixed when a chart is made; only their number asks for another
  React.useEffect(() => {
    if (!node.current) {
      return undefined;
    }
    chart.current = new Chart(node.current, { height, lines, hover });
    chart.current.update(columns, window, lines);
    return () => {
      chart.current?.dispose();
      chart.current = null;
    };
  }, [count, height]);

  React.useEffect(() => {
    chart.current?.update(columns, window, lines);
  }, [columns, window, lines[0]?.colour]);

  return (
    <div
      className="jp-EafInference-chart"
      ref={node}
      style={{ height }}
      role="img"
      aria-label={props.label}
    />
  );
}
