/**
 * This user's Dask clusters.
 */
import React from 'react';

import type { ICluster } from '../api';
import { clip, duration, number, webUrl } from '../models/format';
import { Language, Remark, Section } from './parts';

const SHOWN = 10;

export function Clusters(props: {
  clusters: readonly ICluster[];
  isKnown: boolean;
  problem: string | null;
}): JSX.Element {
  const trans = React.useContext(Language);
  const { clusters, isKnown, problem } = props;
  const more = clusters.length - SHOWN;
  return (
    <Section name="clusters" title={trans.__('My clusters')}>
      {clusters.slice(0, SHOWN).map(cluster => (
        <Cluster key={cluster.name} cluster={cluster} />
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

function Cluster({ cluster }: { cluster: ICluster }): JSX.Element {
  const trans = React.useContext(Language);
  const { workers, configured, inferences_per_second, oldest_token } = cluster;
  const dashboard = webUrl(cluster.dashboard);
  const state =
    workers === null
      ? clip(cluster.status, 40)
      : configured === null
        ? trans._n('%1 worker', '%1 workers', workers, workers)
        : trans.__('%1 / %2 connected', configured, workers);
  const name = clip(cluster.name);
  const details = [
    inferences_per_second === null
      ? null
      : trans.__('%1 jets/s', number(inferences_per_second)),
    oldest_token === null ? null : trans.__('token %1', duration(oldest_token))
  ].filter(each => each !== null);
  return (
    <div className="jp-EafInference-row">
      <div className="jp-EafInference-pair">
        {dashboard ? (
          <a
            href={dashboard}
            target="_blank"
            rel="noopener noreferrer"
            title={trans.__('Open the Dask dashboard of %1', name)}
          >
            {name}
          </a>
        ) : (
          <span title={name}>{name}</span>
        )}
        <span>{state}</span>
      </div>
      {details.length > 0 && (
        <div
          className="jp-EafInference-pair jp-mod-quiet"
          title={trans.__('The age is that of the oldest token of a worker')}
        >
          <span>{details.join(' · ')}</span>
        </div>
      )}
    </div>
  );
}
