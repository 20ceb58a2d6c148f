import type { ICluster, ISession } from '../api';

/**
 * The gateway's clusters with what this browser's kernels know of them. A
 * kernel counts what its own workers did, so its numbers go first; clusters
 * that only a kernel knows (a LocalCluster) are listed too.
 */
export function mergedClusters(
  listed: readonly ICluster[],
  sessions: readonly (ISession | null)[]
): ICluster[] {
  const byName = new Map(listed.map(cluster => [cluster.name, cluster]));
  for (const session of sessions) {
    for (const known of session?.clusters ?? []) {
      const cluster = byName.get(known.name);
      byName.set(known.name, {
        name: known.name,
        status: cluster?.status ?? known.state,
        workers: known.workers ?? cluster?.workers ?? null,
        configured: known.configured ?? cluster?.configured ?? null,
        inferences_per_second:
          known.inferences_per_second ?? cluster?.inferences_per_second ?? null,
        oldest_token: cluster?.oldest_token ?? null,
        dashboard: cluster?.dashboard ?? null
      });
    }
  }
  return [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}
