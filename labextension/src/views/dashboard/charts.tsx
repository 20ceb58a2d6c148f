/**
 * The dashboard's charts: processors, queue, and throughput of the models.
 */
import React from 'react';

import type { ISnapshot } from '../../api';
import { mean } from '../../models/format';
import { gpuRows } from '../../models/gpus';
import { busiest } from '../../models/lines';
import {
  Column,
  Timeline,
  gpuKey,
  memoryKey,
  nameOf
} from '../../models/timeline';
import { IPlotLine, LineColour, OWN_COLOURS, UNITS } from '../../plot';
import { Language } from '../parts';
import { IPlotted, Plotted } from './plotted';

const colour = (slot: number): LineColour => `line${slot + 1}` as LineColour;

const single = (key: string, name: string): IPlotLine[] => [
  { key, name, colour: 'line1' }
];

/** Utilization and memory of each GPU, or of the machine's CPUs if no GPU is reported. */
export function Processors(
  props: IPlotted & { snapshot: ISnapshot | null }
): JSX.Element {
  const trans = React.useContext(Language);
  const { timeline, snapshot } = props;
  const rows = gpuRows(timeline.gpus);
  if (!rows.length) {
    return <Cpus {...props} />;
  }
  const many = rows.length > OWN_COLOURS;
  const lines = (key: (id: string) => string): IPlotLine[] => [
    ...(many
      ? [
          {
            key: 'mean',
            name: trans.__('mean of %1 GPUs', rows.length),
            colour: 'line1',
            kind: 'bold'
          } as const
        ]
      : []),
    ...rows.map((row, at): IPlotLine =>
      many
        ? { key: key(row.id), name: row.label, colour: 'grey', kind: 'faint' }
        : { key: key(row.id), name: row.label, colour: colour(at) }
    )
  ];
  const columns =
    (key: (id: string) => string) =>
    (from: Timeline): Column[] => {
      const each = rows.map(row => from.column(key(row.id)));
      return many ? [means(each), ...each] : each;
    };
  const nothing = snapshot
    ? trans.__('Not reported in this time range.')
    : trans.__('Waiting for the first numbers…');
  return (
    <>
      <Plotted
        {...props}
        title={trans.__('GPU utilization')}
        unit={UNITS.fraction}
        lines={lines(gpuKey)}
        columns={columns(gpuKey)}
        empty={nothing}
      />
      <Plotted
        {...props}
        title={trans.__('GPU memory in use')}
        unitName={trans.__('GiB')}
        unit={UNITS.gibibytes}
        lines={lines(memoryKey)}
        columns={columns(memoryKey)}
        empty={nothing}
      />
    </>
  );
}

function means(columns: Column[]): Column {
  return (columns[0] ?? []).map((_, at) =>
    mean(columns.map(column => column[at]))
  );
}

function Cpus(props: IPlotted & { snapshot: ISnapshot | null }): JSX.Element {
  const trans = React.useContext(Language);
  const ofCpu = props.snapshot?.hosts.some(
    host => host.cpu_utilization !== null
  );
  const key = ofCpu ? 'cpu' : 'busy';
  const nothing = props.snapshot
    ? trans.__('This server reports no utilization.')
    : trans.__('Waiting for the first numbers…');
  return (
    <>
      <Plotted
        {...props}
        title={
          ofCpu
            ? trans.__('CPU utilization (no GPU is reported)')
            : trans.__('Time spent in computation (estimate)')
        }
        unit={UNITS.fraction}
        lines={single(key, ofCpu ? trans.__('CPU') : trans.__('computing'))}
        columns={timeline => [timeline.column(key)]}
        empty={nothing}
      />
      {ofCpu && (
        <Plotted
          {...props}
          title={trans.__('Memory in use')}
          unitName={trans.__('GiB')}
          unit={UNITS.gibibytes}
          lines={single('memory', trans.__('machine'))}
          columns={timeline => [timeline.column('memory')]}
          empty={nothing}
        />
      )}
    </>
  );
}

/** The wait of requests, and their number. */
export function Queue(props: IPlotted): JSX.Element {
  const trans = React.useContext(Language);
  return (
    <>
      <Plotted
        {...props}
        title={trans.__('Time in the queue')}
        unitName={trans.__('ms, mean of all requests')}
        unit={UNITS.milliseconds}
        lines={single('queue', trans.__('mean request'))}
        columns={timeline => [timeline.column('queue')]}
        empty={trans.__('No request was served in this time range.')}
      />
      <Plotted
        {...props}
        title={trans.__('Requests in the queue')}
        unitName={trans.__('mean number')}
        unit={UNITS.requests}
        lines={single('waiting', trans.__('all models'))}
        columns={timeline => [timeline.column('waiting')]}
        empty={trans.__('Nothing was reported in this time range.')}
      />
    </>
  );
}

/** Jets per second: the busiest models, and the sum of all others. */
export function Rates(props: IPlotted): JSX.Element {
  const trans = React.useContext(Language);
  const { timeline, range } = props;
  const before = React.useRef<ReadonlyMap<string, number>>(new Map());
  const slots = React.useMemo(
    () => busiest(timeline.models(range), before.current, OWN_COLOURS),
    [timeline, timeline.version, range]
  );
  before.current = slots.of;
  const models: IPlotLine[] = [...slots.of].map(([key, slot]) => ({
    key,
    name: nameOf(key),
    colour: colour(slot)
  }));
  const others: IPlotLine[] = slots.hasMore
    ? [{ key: 'others', name: trans.__('other models'), colour: 'grey' }]
    : [];
  const lines = models.length
    ? [...models, ...others]
    : single('rate', trans.__('all models'));
  const columns = (from: Timeline): Column[] => {
    if (!models.length) {
      return [from.column('rate')];
    }
    const each = models.map(line => from.column(line.key));
    return others.length ? [...each, rest(from.column('rate'), each)] : each;
  };
  return (
    <Plotted
      {...props}
      title={trans.__('Jets per second')}
      unitName={trans.__('rows, all users')}
      unit={UNITS.rate}
      lines={lines}
      columns={columns}
      empty={trans.__('Nothing was reported in this time range.')}
    />
  );
}

/** The whole minus the parts. */
function rest(whole: Column, parts: Column[]): Column {
  return whole.map((all, at) =>
    all === null
      ? null
      : Math.max(
          0,
          parts.reduce((left, part) => left - (part[at] ?? 0), all)
        )
  );
}
