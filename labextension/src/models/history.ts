/**
 * Points of the last minutes, and their conversion to columns for a chart.
 */
import { ISnapshot } from '../api';
import { mean } from './format';
import { queueOf } from './status';

/** The kept part of a snapshot; times are by the server's clock. */
export interface IPoint {
  time: number;
  busy: number | null;
  cpu: number | null;
  queue: number | null;
  gpus: ReadonlyMap<string, number | null>;
}

/** A chart's columns: times, then one column per line. */
export type Columns = [number[], ...(number | null)[][]];

export function pointOf(snapshot: ISnapshot): IPoint {
  return {
    time: snapshot.time,
    busy: snapshot.busy?.value ?? null,
    cpu: mean(snapshot.hosts.map(host => host.cpu_utilization)),
    queue: queueOf(snapshot),
    gpus: new Map(snapshot.gpus.map(gpu => [gpu.id, gpu.utilization]))
  };
}

/**
 * Merge points in order of time, without duplicates and without points that are
 * older than the window before the newest.
 */
export function merged(
  points: readonly IPoint[],
  more: readonly IPoint[],
  window: number
): IPoint[] {
  const byTime = new Map<number, IPoint>();
  for (const point of points) {
    byTime.set(point.time, point);
  }
  for (const point of more) {
    byTime.set(point.time, point);
  }
  const ordered = [...byTime.values()].sort((a, b) => a.time - b.time);
  const newest = ordered[ordered.length - 1]?.time ?? 0;
  return ordered.filter(point => point.time >= newest - window);
}

/**
 * Convert points to one column per line. A gap in the measurements interrupts the
 * lines.
 */
export function columns<P extends { time: number }>(
  points: readonly P[],
  lines: readonly ((point: P) => number | null)[],
  interval: number
): Columns {
  const longest = Math.max(5, 3 * interval);
  const times: number[] = [];
  const values: (number | null)[][] = lines.map(() => []);
  let before: number | null = null;
  for (const point of points) {
    if (before !== null && point.time - before > longest) {
      times.push((before + point.time) / 2);
      values.forEach(column => column.push(null));
    }
    times.push(point.time);
    lines.forEach((line, index) => values[index].push(line(point)));
    before = point.time;
  }
  return [times, ...values];
}

/** Columns for one chart of many GPUs: their mean, then each GPU. */
export function gpuColumns(
  points: readonly IPoint[],
  ids: readonly string[],
  interval: number
): Columns {
  return columns(
    points,
    [
      point => mean(point.gpus.values()),
      ...ids.map(id => (point: IPoint) => point.gpus.get(id) ?? null)
    ],
    interval
  );
}
