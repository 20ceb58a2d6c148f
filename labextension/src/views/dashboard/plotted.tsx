/**
 * A chart with axes inside React: a heading, the chart, and what its lines are.
 */
import React from 'react';

import { IPlotLine, IUnit, OWN_COLOURS, Plot } from '../../plot';
import { duration } from '../../models/format';
import type { Column, Timeline } from '../../models/timeline';
import { Language, Remark } from '../parts';

const HEIGHT = 190;

/** What all charts of a tab have in common. */
export interface IPlotted {
  timeline: Timeline;
  range: number;
  /** Charts of one tab have one pointer. */
  group: string;
}

export function Plotted(
  props: IPlotted & {
    title: string;
    /** What the numbers on the axis are, where they do not say it. */
    unit: IUnit;
    unitName?: string;
    lines: readonly IPlotLine[];
    /** One for each line. */
    columns: (timeline: Timeline) => Column[];
    /** What to say while nothing of it was measured in this range. */
    empty: string;
  }
): JSX.Element {
  const trans = React.useContext(Language);
  const { timeline, range, group, title, unit, unitName, lines } = props;
  const id = React.useId();
  const node = React.useRef<HTMLDivElement>(null);
  const plot = React.useRef<Plot | null>(null);
  const [said, say] = React.useState('');
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
      const options = { lines, unit, height: HEIGHT, group, say };
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
    '%1 in the last %2: %3. Left and right arrow keys tell earlier values.',
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
        {said}
      </span>
    </figure>
  );
}
