/**
 * A small chart in React: created once, then updated with new columns.
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
  /** The text beside the pointer for the lines' values at one time. */
  hover?: (values: (number | null)[]) => string;
}): JSX.Element {
  const node = React.useRef<HTMLDivElement>(null);
  const chart = React.useRef<Chart | null>(null);
  const { columns, window, lines, height = 34, hover = ofOne } = props;
  const count = lines.length;

  // a chart's number of lines is fixed, so another number needs another chart
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
