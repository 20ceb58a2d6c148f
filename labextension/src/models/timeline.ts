/**
 * Columns of up to an hour, for charts with axes: filled once from the server,
 * then extended by new snapshots.
 */
import type { IGpu, ISnapshot, ITimeline } from '../api';
import { mean } from './format';
import { queueOf, rateOf } from './status';

export type Column = (number | null)[];

/** Up to this range, in seconds, the server sends every snapshot; above, means of STEP seconds. */
export const EACH = 600;
export const STEP = 5;
/** Models of a snapshot that are kept. */
const BUSIEST = 20;
/** The most columns of models, since models come and go. */
const MOST_MODELS = 60;

const GIBIBYTE = 2 ** 30;

/** Values of a GPU that the server's columns lack. */
const UNKNOWN = {
  utilization: null,
  memory_used: null,
  power: null,
  tensor: null,
  dram: null,
  source: ''
};

export const gpuKey = (id: string): string => `gpu ${id}`;
export const memoryKey = (id: string): string => `memory ${id}`;
const MODEL = 'model ';
export const modelKey = (name: string, version: string): string =>
  `${MODEL}${name}\n${version}`;
/** The name in a model's key. */
export const nameOf = (key: string): string =>
  key.slice(MODEL.length, key.lastIndexOf('\n'));

const total = (values: readonly (number | null)[]): number | null => {
  const known = values.filter(value => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
};

const inGibibytes = (bytes: number | null): number | null =>
  bytes === null ? null : bytes / GIBIBYTE;

/** The values that a timeline keeps of a snapshot; memory in GiB. */
function valuesOf(snapshot: ISnapshot): Map<string, number | null> {
  const { busy, gpus, hosts, models } = snapshot;
  const busiest = [...models]
    .sort(
      (a, b) => (b.inferences_per_second ?? 0) - (a.inferences_per_second ?? 0)
    )
    .slice(0, BUSIEST);
  return new Map([
    ['busy', busy?.value ?? null],
    ['cpu', mean(hosts.map(host => host.cpu_utilization))],
    ['memory', inGibibytes(total(hosts.map(host => host.memory_used)))],
    ['queue', queueOf(snapshot)],
    ['waiting', total(models.map(model => model.waiting))],
    ['rate', rateOf(snapshot)],
    ...gpus.flatMap((gpu): [string, number | null][] => [
      [gpuKey(gpu.id), gpu.utilization],
      [memoryKey(gpu.id), inGibibytes(gpu.memory_used)]
    ]),
    ...busiest.map((model): [string, number | null] => [
      modelKey(model.name, model.version),
      model.inferences_per_second
    ])
  ]);
}

export class Timeline {
  /** With `step` 0 every snapshot has its own value, else there is a mean per `step` seconds. */
  constructor(
    readonly step: number,
    readonly longest: number
  ) {}

  /** Seconds since the epoch, by the server's clock, in order. */
  get times(): readonly number[] {
    return this._times;
  }

  get newest(): number {
    return this._times[this._times.length - 1] ?? 0;
  }

  /** Changes when the charts must be redrawn. */
  get version(): number {
    return this._version;
  }

  /** A column as long as the times; all null for an unknown key. */
  column(key: string): Column {
    let column = this._columns.get(key);
    if (!column) {
      column = new Array<null>(this._times.length).fill(null);
      this._columns.set(key, column);
    }
    return column;
  }

  /** All GPUs that have a column, with their latest description. */
  get gpus(): IGpu[] {
    return [...this._gpus.values()];
  }

  /** Keys of models with the sum of their rates over the last seconds, in descending order. */
  models(seconds: number): [key: string, sum: number][] {
    const from = this._times.findIndex(time => time >= this.newest - seconds);
    const sums: [string, number][] = [];
    for (const [key, column] of this._columns) {
      if (key.startsWith(MODEL)) {
        const recent = from < 0 ? [] : column.slice(from);
        sums.push([key, total(recent) ?? 0]);
      }
    }
    return sums.sort(([a, most], [b, more]) => more - most || (a < b ? -1 : 1));
  }

  /** Replace the contents by the server's columns, and keep the snapshots that are newer. */
  fill(columns: ITimeline): void {
    const since = this._open.filter(
      ({ time }) => time > (columns.times[columns.times.length - 1] ?? 0)
    );
    const rows = columns.gpus.map(gpu => [
      [gpuKey(gpu.id), gpu.utilization],
      [memoryKey(gpu.id), gpu.memory_used.map(inGibibytes)]
    ]) as [string, Column][][];
    for (const { id, host, name, profile, memory_total } of columns.gpus) {
      if (!this._gpus.has(id)) {
        this._gpus.set(id, {
          ...UNKNOWN,
          id,
          host,
          name,
          profile,
          memory_total
        });
      }
    }
    this._times = [...columns.times];
    this._columns = new Map<string, Column>([
      ['busy', columns.busy],
      ['cpu', columns.cpu],
      ['memory', columns.memory_used.map(inGibibytes)],
      ['queue', columns.queue_ms],
      ['waiting', columns.waiting],
      ['rate', columns.inferences_per_second],
      ...rows.flat(),
      ...columns.models.map((model): [string, Column] => [
        modelKey(model.name, model.version),
        model.inferences_per_second
      ])
    ]);
    this._interval = Math.max(columns.step, this.step);
    this._open = [];
    this._breakGaps();
    since.forEach(moment => this._take(moment.time, moment.values));
    this._version += 1;
  }

  add(snapshot: ISnapshot, interval: number): void {
    if (snapshot.time < this.newest - this._gap) {
      this._cut(snapshot.time); // the server's clock was set back
    }
    if (snapshot.time > this.newest) {
      this._interval = Math.max(interval, this.step);
      snapshot.gpus.forEach(gpu => this._gpus.set(gpu.id, gpu));
      this._take(snapshot.time, valuesOf(snapshot));
    }
  }

  private _take(time: number, values: Map<string, number | null>): void {
    const open = this._open[0];
    const isOpen =
      open &&
      this.step > 0 &&
      Math.floor(open.time / this.step) === Math.floor(time / this.step);
    if (!isOpen) {
      this._open = [];
      if (this._times.length && time - this.newest > this._gap) {
        this._push((time + this.newest) / 2, new Map());
      }
      this._push(time, values);
      this._trim();
      this._version += 1; // a mean is drawn when the next one begins
    }
    this._open.push({ time, values });
    if (isOpen) {
      const last = this._times.length - 1;
      this._times[last] = mean(this._open.map(each => each.time)) ?? time;
      for (const [key, column] of this._columns) {
        column[last] = mean(this._open.map(each => each.values.get(key)));
      }
    }
  }

  private _push(time: number, values: Map<string, number | null>): void {
    for (const key of values.keys()) {
      this.column(key);
    }
    this._times.push(time);
    for (const [key, column] of this._columns) {
      column.push(values.get(key) ?? null);
    }
    const models = this.models(this.longest);
    if (models.length > MOST_MODELS) {
      models.slice(BUSIEST).forEach(([key]) => this._columns.delete(key));
    }
  }

  private _trim(): void {
    const old = this._times.findIndex(
      time => time >= this.newest - this.longest
    );
    if (old > 0) {
      this._times.splice(0, old);
      this._columns.forEach(column => column.splice(0, old));
    }
  }

  /** Forget what was measured at this time or later. */
  private _cut(time: number): void {
    const kept = this._times.findIndex(each => each >= time);
    this._times.splice(kept);
    this._columns.forEach(column => column.splice(kept));
    this._open = [];
  }

  /** Interrupt the lines at gaps in the measurements. */
  private _breakGaps(): void {
    for (let at = this._times.length - 1; at > 0; at--) {
      const [before, after] = [this._times[at - 1], this._times[at]];
      if (after - before > this._gap) {
        this._times.splice(at, 0, (before + after) / 2);
        this._columns.forEach(column => column.splice(at, 0, null));
      }
    }
  }

  private get _gap(): number {
    return Math.max(5, 3 * this._interval);
  }

  private _times: number[] = [];
  private _columns = new Map<string, Column>();
  private readonly _gpus = new Map<string, IGpu>();
  private _open: { time: number; values: Map<string, number | null> }[] = [];
  private _interval = 1;
  private _version = 0;
}
