/**
 * This user's clusters as the panel lists them, under names that people can
 * tell apart.
 */
import type { ICluster } from '../api';
import { clip } from './format';
import type { IConnectedNotebook } from './sessions';

/** A gateway's names are these, with its namespace before them on Kubernetes. */
const RANDOM = /^(?:[\w-]+\.)?([0-9a-f]{32})$/i;
const SHORTEST = 6;

export interface IKnownCluster extends ICluster {
  /** What tells it from the others: the beginning of a long id, or its name. */
  label: string;
  /** Titles of the open notebooks whose kernels use it. */
  notebooks: string[];
  /** Whether the gateway lists it, which can scale it and shut it down. */
  listed: boolean;
}

/**
 * The gateway's clusters with what this browser's kernels know of them. A
 * kernel counts what its own workers did, so its numbers go first; clusters
 * that only a kernel knows (a LocalCluster) are listed too.
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

/** As short as they can be told apart; what is no random id stays as it is. */
function shortNames(names: readonly string[]): Map<string, string> {
  const ids = names.map(name => RANDOM.exec(name)?.[1] ?? null);
  const isTold = (length: number) => {
    const short = ids.flatMap(id => (id === null ? [] : [id.slice(0, length)]));
    return new Set(short).size === short.length;
  };
  let length = SHORTEST;
  while (length < 32 && !isTold(length)) {
    length += 1;
  }
  return new Map(
    names.map((name, place) => {
      const id = ids[place];
      return [name, id === null ? clip(name) : id.slice(0, length)];
    })
  );
}

/** Dask's own page of a cluster, if a browser may open it; under a Hub it is a path of this site. */
export function dashboardUrl(url: string | null): string | null {
  return url && /^(https?:\/\/|\/[^/\\])/i.test(url) ? url : null;
}
