/**
 * A chart with axes in React: heading, chart and legend.
 */
import React from 'react';

import { IPlotLine, IUnit, OWN_COLOURS, Plot } from '../../plot';
import { duration } from '../../models/format';
import type { Column, Timeline } from '../../models/timeline';
import { Language, Remark } from '../parts';

const HEIGHT = 190;

/** Properties that all charts of a tab share. */
export interface IPlotted {
  timeline: Timeline;
  range: number;
  /** Charts of one group share a pointer. */
  group: string;
}

export function Plotted(
  props: IPlotted & {
    title: string;
    unit: IUnit;
    /** The unit of the numbers on the axis, if they do not include it. */
    unitName?: string;
    lines: readonly IPlotLine[];
    /** One column per line. */
    columns: (timeline: Timeline) => Column[];
    /** The text to show if nothing was measured in this range. */
    empty: string;
  }
): JSX.Element {
  const trans = React.useContext(Language);
  const { timeline, range, group, title, unit, unitName, lines } = props;
  const id = React.useId();
  const node = React.useRef<HTMLDivElement>(null);
  const plot = React.useRef<Plot | null>(null);
  const [announced, announce] = React.useState('');
  const { version } = timeline;
  const made = lines.map(line => Object.values(line).join(' ')).join('\n');
  const columns = props.columns(timeline);
  const from = timeline.times.findIndex(
    time => time >= timeline.newest - range
  );
  const isMeasured = columns.some(
    column => from >= 0 && column.slice(from).some(value => value !== null)
  );

  React.useEffect(() => {
    if (node.current) {
      const options = { lines, unit, height: HEIGHT, group, announce };
      plot.current = new Plot(node.current, options);
      plot.current.update(timeline.times, columns, range);
    }
    return () => {
      plot.current?.dispose();
      plot.current = null;
    };
  }, [made, unit, group]);

  React.useEffect(() => {
    plot.current?.update(timeline.times, columns, range);
  }, [timeline, version, range, made]);

  const now = columns.map(column => column[column.length - 1] ?? null);
  const isListed = lines.length <= OWN_COLOURS + 1;
  const label = trans.__(
    '%1 in the last %2: %3. Use the left and right arrow keys to read earlier values.',
    title,
    duration(range),
    (isListed ? lines : lines.slice(0, 1))
      .map((line, at) => `${line.name} ${unit.text(now[at])}`)
      .join(', ')
  );
  return (
    <figure className="jp-EafInference-figure" aria-labelledby={id}>
      <figcaption id={id}>
        <span>{title}</span>
        {unitName && <small>{unitName}</small>}
      </figcaption>
      <div
        className="jp-EafInference-plot"
        ref={node}
        style={{ height: HEIGHT }}
        tabIndex={0}
        role="img"
        aria-label={label}
      />
      {!isMeasured && (
        <div className="jp-EafInference-unmeasured">
          <Remark>{props.empty}</Remark>
        </div>
      )}
      <ul className="jp-EafInference-legend">
        {(isListed ? lines : lines.slice(0, 1)).map((line, at) => (
          <li key={line.key} title={line.name}>
            <i data-colour={line.colour} />
            <span>{line.name}</span>
            <b>{unit.text(now[at])}</b>
          </li>
        ))}
      </ul>
      <span className="jp-EafInference-said" role="status">
        {announced}
      </span>
    </figure>
  );
}
