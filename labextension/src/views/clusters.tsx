/**
 * This user's Dask clusters.
 */
import React from 'react';

import type { ClusterChanges } from '../models/changes';
import { IKnownCluster, dashboardUrl } from '../models/clusters';
import { clip, duration, number } from '../models/format';
import { Button, Language, Remark, Section } from './parts';

const SHOWN = 10;

/** Changes to a cluster that the gateway lists; both ask for confirmation. */
export interface IClusterActions {
  scale(cluster: IKnownCluster): void;
  shutDown(cluster: IKnownCluster): void;
  changes: ClusterChanges;
}

export function Clusters(props: {
  clusters: readonly IKnownCluster[];
  isKnown: boolean;
  problem: string | null;
  actions: IClusterActions;
}): JSX.Element {
  const trans = React.useContext(Language);
  const { isKnown, problem, actions } = props;
  const clusters = props.clusters.filter(
    each => !actions.changes.isGone(each.name)
  );
  const more = clusters.length - SHOWN;
  return (
    <Section name="clusters" title={trans.__('My clusters')}>
      {clusters.slice(0, SHOWN).map(cluster => (
        <Cluster key={cluster.name} cluster={cluster} actions={actions} />
      ))}
      {more > 0 && <Remark>{trans.__('and %1 more', more)}</Remark>}
      {problem !== null && <Remark>{clip(problem, 300)}</Remark>}
      {!clusters.length && problem === null && (
        <Remark>
          {isKnown
            ? trans.__('No Dask cluster is running.')
            : trans.__('Looking for clusters…')}
        </Remark>
      )}
    </Section>
  );
}

function Cluster(props: {
  cluster: IKnownCluster;
  actions: IClusterActions;
}): JSX.Element {
  const trans = React.useContext(Language);
  const { cluster, actions } = props;
  const { label, notebooks, workers, configured, started } = cluster;
  const { inferences_per_second, oldest_token } = cluster;
  const dashboard = dashboardUrl(cluster.dashboard);
  const state =
    workers === null
      ? clip(cluster.status, 40)
      : !workers
        ? trans.__('no workers')
        : configured === null
          ? trans._n('%1 worker', '%1 workers', workers, workers)
          : trans.__('%1 / %2 connected', configured, workers);
  const details = [
    ...notebooks,
    started === null
      ? null
      : trans.__('%1 old', duration(Date.now() / 1000 - started)),
    inferences_per_second === null
      ? null
      : trans.__('%1 jets/s', number(inferences_per_second)),
    oldest_token === null ? null : trans.__('token %1', duration(oldest_token))
  ].filter(each => each !== null);
  const note = actions.changes.note(cluster, trans);
  const isFree = cluster.listed && !actions.changes.isRequested(cluster.name);
  return (
    <div
      className="jp-EafInference-row jp-EafInference-cluster"
      role="group"
      aria-label={trans.__('Cluster %1', label)}
    >
      <div className="jp-EafInference-pair">
        <strong title={clip(cluster.name)}>{label}</strong>
        <span
          title={
            configured === null
              ? undefined
              : trans.__('Workers that are connected to Triton, of all workers')
          }
        >
          {state}
        </span>
      </div>
      {details.length > 0 && (
        <div
          className="jp-EafInference-pair jp-mod-quiet"
          title={trans.__(
            'Notebooks that use the cluster, its age, jets per second of all workers, age of their oldest token'
          )}
        >
          <span>{details.join(' · ')}</span>
        </div>
      )}
      {note && (
        <p
          className={`jp-EafInference-${note.failed ? 'mark' : 'remark'}`}
          role={note.failed ? 'alert' : 'status'}
        >
          {note.text}
        </p>
      )}
      <div className="jp-EafInference-actions">
        {cluster.status === 'running' && isFree && (
          <Button
            label={trans.__('Scale')}
            title={trans.__('Scale cluster %1', label)}
            onClick={() => actions.scale(cluster)}
          />
        )}
        {isFree && (
          <Button
            label={trans.__('Shut down')}
            title={trans.__('Shut down cluster %1', label)}
            onClick={() => actions.shutDown(cluster)}
          />
        )}
        {dashboard && (
          <a
            href={dashboard}
            target="_blank"
            rel="noopener noreferrer"
            title={trans.__('Open the Dask dashboard of cluster %1', label)}
          >
            {trans.__('Dashboard')}
          </a>
        )}
      </div>
    </div>
  );
}
