/**
 * Rows of the models table: the served models with their measured load.
 */
import type { IModelLoad, IServedModel } from '../api';
import { share } from './format';

/** Show a filter from this number of models. */
export const FILTER_FROM = 8;
/** Rows before "and N more". */
export const ROWS = 20;

export interface IModelRow {
  key: string;
  name: string;
  /** Set only if there are several versions of the model, or if it is this user's. */
  version: string | null;
  /** The server's state for a model that is not ready. */
  state: string | null;
  inputs: string[];
  outputs: string[];
  rate: number | null;
  queue: number | null;
  batch: number | null;
  failures: number | null;
  share: number | null;
  /** The user who deployed it; empty for the facility's, or if unknown. */
  owner: string;
  /** Whether this user deployed it. */
  mine: boolean;
  deployed: IServedModel['deployed'];
  /** Seconds since the epoch; 0: not since it was loaded, null: unknown. */
  lastUsed: number | null;
  /** Source of a cell that calls the model, if it is ready. */
  cell: string | null;
}

const keyOf = (model: { name: string; version: string }) =>
  `${model.name}\n${model.version}`;

/** All served or measured models: this user's first, then in descending order of load, then by name. */
export function modelRows(
  served: readonly IServedModel[],
  loads: readonly IModelLoad[]
): IModelRow[] {
  const measured = new Map(loads.map(load => [keyOf(load), load]));
  const serving = new Map(served.map(model => [keyOf(model), model]));
  const keys = new Set([...serving.keys(), ...measured.keys()]);
  const versions = new Map<string, number>();
  for (const key of keys) {
    const name = key.slice(0, key.lastIndexOf('\n'));
    versions.set(name, (versions.get(name) ?? 0) + 1);
  }
  let total = 0;
  for (const load of loads) {
    total += load.inferences_per_second ?? 0;
  }
  const rows = [...keys].map(key => {
    const model = serving.get(key);
    const load = measured.get(key);
    const name = key.slice(0, key.lastIndexOf('\n'));
    const version = key.slice(name.length + 1);
    return {
      key,
      name,
      version:
        (versions.get(name) ?? 0) > 1 || model?.mine ? version || null : null,
      state: model && !model.ready ? model.state : null,
      inputs: model?.inputs ?? [],
      outputs: model?.outputs ?? [],
      rate: load?.inferences_per_second ?? null,
      queue: load?.queue_ms ?? null,
      batch: load?.batch ?? null,
      failures: load?.failures_per_second ?? null,
      share: share(load?.inferences_per_second, total),
      owner: model?.owner ?? '',
      mine: model?.mine ?? false,
      deployed: model?.deployed ?? null,
      lastUsed: model?.last_used ?? null,
      cell: (model?.ready && model.cell) || null
    };
  });
  return rows.sort(
    (a, b) =>
      Number(b.mine) - Number(a.mine) ||
      (b.rate ?? -1) - (a.rate ?? -1) ||
      (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
  );
}

/** The first rows whose name contains the text, and the number of further ones. */
export function shownRows(
  rows: readonly IModelRow[],
  filter: string,
  cap = ROWS
): { shown: IModelRow[]; more: number } {
  const text = filter.trim().toLowerCase();
  const found = text
    ? rows.filter(row => row.name.toLowerCase().includes(text))
    : rows;
  return { shown: found.slice(0, cap), more: Math.max(0, found.length - cap) };
}
