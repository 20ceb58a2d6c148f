/**
 * GPUs and MIG slices, or the server's CPUs if it reports no GPU.
 */
import React from 'react';

import type { IFacility, ISnapshot } from '../api';
import type { ILine } from '../chart';
import {
  clip,
  duration,
  mean,
  memory,
  percent,
  share,
  watts
} from '../models/format';
import {
  IGpuRow,
  ROWS,
  WITH_OWN_LINE,
  gpuRows,
  lacksGpus
} from '../models/gpus';
import { IPoint, columns, gpuColumns } from '../models/history';
import { Level, levelOf, loadOf, windowOf } from '../models/status';
import { Lines } from './chart';
import { Bar, Button, Language, Pair, Remark, Section } from './parts';

interface IProps {
  /** The mean of the current run. */
  snapshot: ISnapshot | null;
  points: readonly IPoint[];
  window: number;
  interval: number;
  /** Opens the documentation, if there is any. */
  documentation: { label: string; run: () => void } | null;
}

const area = (level: Level): ILine[] => [{ colour: level, fill: 0.15 }];

export function Gpus(props: IProps & { facility: IFacility }): JSX.Element {
  const trans = React.useContext(Language);
  const { snapshot, facility } = props;
  if (!facility.metrics.configured) {
    return (
      <Section name="gpus" title={trans.__('Server')}>
        <Remark>
          {trans.__(
            'The load is unknown: no metrics endpoint is configured for this facility.'
          )}
        </Remark>
        <Docs documentation={props.documentation} />
      </Section>
    );
  }
  if (snapshot === null) {
    return (
      <Section name="gpus" title={trans.__('Server')}>
        <Remark>{trans.__('Waiting for the first numbers…')}</Remark>
      </Section>
    );
  }
  if (!snapshot.gpus.length) {
    return <Cpus {...props} snapshot={snapshot} />;
  }
  const kinds = [...new Set(snapshot.gpus.map(gpu => gpu.source))];
  const rows = gpuRows(snapshot.gpus);
  return (
    <Section
      name="gpus"
      title={trans.__('GPUs')}
      note={trans.__(
        'from %1, %2',
        clip(kinds.join(', '), 40),
        windowOf(snapshot, trans)
      )}
    >
      {rows.length > WITH_OWN_LINE ? (
        <Many {...props} rows={rows} />
      ) : (
        rows.map(row => <One key={row.id} {...props} row={row} />)
      )}
      <Silent snapshot={snapshot} />
    </Section>
  );
}

function One(props: IProps & { row: IGpuRow }): JSX.Element {
  const trans = React.useContext(Language);
  const { row, points, window, interval } = props;
  const line = React.useMemo(
    () => columns(points, [point => point.gpus.get(row.id) ?? null], interval),
    [points, row.id, interval]
  );
  const used = memory(row.memory_used, row.memory_total);
  return (
    <div className="jp-EafInference-row">
      <Pair name={row.label} value={percent(row.utilization)} />
      {row.utilization === null && (
        <Remark>{trans.__('Its utilization is not reported.')}</Remark>
      )}
      <Lines
        label={trans.__(
          'Utilization of %1 in the last %2, now %3',
          row.label,
          duration(window),
          percent(row.utilization)
        )}
        columns={line}
        window={window}
        lines={area(levelOf(row.utilization))}
      />
      <Pair
        quiet
        name={trans.__('memory %1', used)}
        value={row.power === null ? '' : watts(row.power)}
      />
      <Bar
        label={trans.__('Memory of %1', row.label)}
        value={share(row.memory_used, row.memory_total)}
        text={used}
        level="normal"
      />
      <Active row={row} />
    </div>
  );
}

/** Activity of a GPU's units, if DCGM reports it. */
function Active({ row }: { row: IGpuRow }): JSX.Element | null {
  const trans = React.useContext(Language);
  const known = [
    row.tensor === null ? null : trans.__('tensor %1', percent(row.tensor)),
    row.dram === null ? null : trans.__('DRAM %1', percent(row.dram))
  ].filter(each => each !== null);
  return known.length ? <Pair quiet name={known.join(' · ')} value="" /> : null;
}

/** One chart of all GPUs, and a short row per GPU. */
function Many(props: IProps & { rows: IGpuRow[] }): JSX.Element {
  const trans = React.useContext(Language);
  const [all, setAll] = React.useState(false);
  const { rows, points, window, interval } = props;
  const ids = rows.map(row => row.id);
  const data = React.useMemo(
    () => gpuColumns(points, ids, interval),
    [points, ids.join('\n'), interval]
  );
  const average = mean(rows.map(row => row.utilization));
  const lines: ILine[] = [
    { colour: levelOf(average), width: 2 },
    ...rows.map((): ILine => ({ colour: 'unknown', width: 1, alpha: 0.35 }))
  ];
  const shown = all ? rows : rows.slice(0, ROWS);
  return (
    <div className="jp-EafInference-row">
      <Pair
        name={trans.__('Mean of %1', rows.length)}
        value={percent(average)}
      />
      <Lines
        label={trans.__(
          'Utilization of %1 GPUs in the last %2, the mean is now %3',
          rows.length,
          duration(window),
          percent(average)
        )}
        columns={data}
        window={window}
        lines={lines}
        height={56}
        hover={([all, ...each]) => {
          const known = each.filter(value => value !== null);
          return trans.__(
            'mean %1, from %2 to %3',
            percent(all),
            percent(Math.min(...known)),
            percent(Math.max(...known))
          );
        }}
      />
      <ul className="jp-EafInference-gpus">
        {shown.map(row => (
          <Short key={row.id} row={row} />
        ))}
      </ul>
      {rows.length > ROWS && (
        <Button
          label={
            all
              ? trans.__('Show the first %1', ROWS)
              : trans.__('and %1 more', rows.length - ROWS)
          }
          onClick={() => setAll(!all)}
        />
      )}
    </div>
  );
}

const Short = React.memo(
  function Short({ row }: { row: IGpuRow }): JSX.Element {
    const trans = React.useContext(Language);
    const used = memory(row.memory_used, row.memory_total);
    const power = watts(row.power);
    return (
      <li title={trans.__('%1: memory %2, %3', row.label, used, power)}>
        <Pair name={row.label} value={percent(row.utilization)} />
        <Bar
          label={trans.__('Utilization of %1', row.label)}
          value={row.utilization}
          text={percent(row.utilization)}
        />
      </li>
    );
  },
  (a, b) =>
    a.row.label === b.row.label &&
    percent(a.row.utilization) === percent(b.row.utilization) &&
    a.row.memory_used === b.row.memory_used &&
    a.row.power === b.row.power
);

function Cpus(props: IProps & { snapshot: ISnapshot }): JSX.Element {
  const trans = React.useContext(Language);
  const { snapshot, points, window, interval } = props;
  const load = loadOf(snapshot, trans);
  const ofCpu = snapshot.hosts.some(host => host.cpu_utilization !== null);
  const line = React.useMemo(
    () =>
      columns(points, [point => (ofCpu ? point.cpu : point.busy)], interval),
    [points, ofCpu, interval]
  );
  return (
    <Section
      name="gpus"
      title={trans.__('Server')}
      note={windowOf(snapshot, trans)}
    >
      <div className="jp-EafInference-row">
        {load.value !== null && (
          <>
            <Pair
              name={ofCpu ? trans.__('CPU') : trans.__('Computing (estimate)')}
              value={percent(load.value)}
            />
            <Lines
              label={trans.__(
                '%1 in the last %2, now %3',
                load.title,
                duration(window),
                percent(load.value)
              )}
              columns={line}
              window={window}
              lines={area(levelOf(load.value))}
            />
          </>
        )}
        {snapshot.hosts.slice(0, 4).map(host => (
          <React.Fragment key={host.name}>
            <Pair
              quiet
              name={trans.__(
                'memory %1',
                memory(host.memory_used, host.memory_total)
              )}
              value={clip(host.name, 40)}
            />
            <Bar
              label={trans.__('Memory of %1', clip(host.name, 40))}
              value={share(host.memory_used, host.memory_total)}
              text={memory(host.memory_used, host.memory_total)}
              level="normal"
            />
          </React.Fragment>
        ))}
        {lacksGpus(snapshot) && (
          <Remark>{trans.__('No GPU reported by this server.')}</Remark>
        )}
      </div>
      <Docs documentation={props.documentation} />
      <Silent snapshot={snapshot} />
    </Section>
  );
}

function Docs(props: Pick<IProps, 'documentation'>): JSX.Element | null {
  const { documentation } = props;
  return (
    documentation && (
      <div className="jp-EafInference-row">
        <Button label={documentation.label} onClick={documentation.run} />
      </div>
    )
  );
}

/** A remark on sources that do not answer, whose numbers are missing above. */
function Silent({ snapshot }: { snapshot: ISnapshot }): JSX.Element | null {
  const trans = React.useContext(Language);
  const failing = snapshot.sources.filter(source => source.error !== null);
  const left = snapshot.sources.reduce((sum, each) => sum + each.left_out, 0);
  if (!failing.length && !left) {
    return null;
  }
  return (
    <Remark>
      {failing.length > 0 &&
        trans.__(
          '%1 of %2 sources do not answer: %3. ',
          failing.length,
          snapshot.sources.length,
          clip(`${failing[0].name}: ${failing[0].error}`, 160)
        )}
      {left > 0 && trans.__('%1 models or GPUs are left out.', left)}
    </Remark>
  );
}
