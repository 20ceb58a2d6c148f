/**
 * This user's clusters as the panel lists them, with short and distinct labels.
 */
import type { ICluster } from '../api';
import { clip } from './format';
import type { IConnectedNotebook } from './sessions';

/** Names that a gateway generates; on Kubernetes they begin with the namespace. */
const RANDOM = /^(?:[\w-]+\.)?([0-9a-f]{32})$/i;
const SHORTEST = 6;

export interface IKnownCluster extends Omit<ICluster, 'started'> {
  /** Seconds since the epoch; null for a cluster that only a kernel reports. */
  started: number | null;
  /** The shortest distinct beginning of a generated name, or the whole name. */
  label: string;
  /** Titles of the open notebooks whose kernels use it. */
  notebooks: string[];
  /** Whether the gateway lists it, so that it can be scaled and shut down. */
  listed: boolean;
}

/**
 * Merge the gateway's clusters with those that this browser's kernels report. A
 * kernel counts the work of its own workers, so its numbers take precedence.
 * Clusters that only a kernel reports, such as a LocalCluster, are included.
 */
export function mergedClusters(
  listed: readonly ICluster[],
  connected: readonly Pick<IConnectedNotebook, 'notebook' | 'session'>[]
): IKnownCluster[] {
  const byName = new Map<string, IKnownCluster>(
    listed.map(cluster => [
      cluster.name,
      { ...cluster, label: '', notebooks: [], listed: true }
    ])
  );
  for (const { notebook, session } of connected) {
    for (const known of session?.clusters ?? []) {
      const cluster = byName.get(known.name);
      const title = clip(notebook.title);
      const others = cluster?.notebooks ?? [];
      byName.set(known.name, {
        name: known.name,
        label: '',
        notebooks: others.includes(title) ? others : [...others, title],
        listed: cluster?.listed ?? false,
        status: cluster?.status ?? known.state,
        started: cluster?.started ?? null,
        workers: known.workers ?? cluster?.workers ?? null,
        configured: known.configured ?? cluster?.configured ?? null,
        inferences_per_second:
          known.inferences_per_second ?? cluster?.inferences_per_second ?? null,
        oldest_token: cluster?.oldest_token ?? null,
        dashboard: cluster?.dashboard ?? null
      });
    }
  }
  const labels = shortNames([...byName.keys()]);
  return [...byName.values()]
    .map(each => ({ ...each, label: labels.get(each.name) ?? each.name }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The shortest distinct beginnings of generated names; other names stay whole. */
function shortNames(names: readonly string[]): Map<string, string> {
  const ids = names.map(name => RANDOM.exec(name)?.[1] ?? null);
  const areDistinct = (length: number) => {
    const short = ids.flatMap(id => (id === null ? [] : [id.slice(0, length)]));
    return new Set(short).size === short.length;
  };
  let length = SHORTEST;
  while (length < 32 && !areDistinct(length)) {
    length += 1;
  }
  return new Map(
    names.map((name, place) => {
      const id = ids[place];
      return [name, id === null ? clip(name) : id.slice(0, length)];
    })
  );
}

/** The URL of a cluster's Dask dashboard, if it is safe to open; under a Hub it is a path of this site. */
export function dashboardUrl(url: string | null): string | null {
  return url && /^(https?:\/\/|\/[^/\\])/i.test(url) ? url : null;
}
