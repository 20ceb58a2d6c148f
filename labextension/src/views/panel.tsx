/**
 * The sidebar: a header and sections, or the reason why there are none.
 */
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { refreshIcon } from '@jupyterlab/ui-components';
import { ISignal } from '@lumino/signaling';
import React from 'react';

import type { IAdvice, IFacility, IUsage } from '../api';
import { dashboardIcon, tritonIcon } from '../icon';
import { mergedClusters } from '../models/clusters';
import { clip, hostOf, webUrl } from '../models/format';
import { IFreshness, ageText, freshness } from '../models/freshness';
import { LiveModel } from '../models/live';
import { modelRows } from '../models/load';
import { emptyStateOf, outageOf } from '../models/outage';
import { SessionsModel } from '../models/sessions';
import { ISettings } from '../models/settings';
import { windowOf } from '../models/status';
import { expiry } from '../models/token';
import { UsageModel } from '../models/usage';
import { Clusters, IClusterActions } from './clusters';
import { Empty, Helpers } from './empty';
import { Gpus } from './gpus';
import { IModelActions, Models } from './models';
import { Notebooks } from './notebooks';
import { LiveWidget } from './livewidget';
import { Health, Language, Remark } from './parts';
import { Usage } from './usage';

const LIMITS = new Set<IAdvice['kind']>([
  'stuck',
  'idle GPU',
  'small batches',
  'server bound',
  'CPU bound',
  'client bound'
]);

export interface IPanelActions extends IModelActions {
  /** Connect the current notebook, or open a connected one. */
  connect(url?: string): void;
  /** What `connect` would do now; null if the current notebook is connected. */
  offer(): { label: string } | null;
  open(url: string): void;
  /** Open the dashboard. */
  dashboard(): void;
  reload(): void;
}

export class Panel extends LiveWidget {
  constructor(
    private readonly _options: {
      live: LiveModel;
      sessions: SessionsModel;
      usage: UsageModel;
      clusters: IClusterActions;
      actions: IPanelActions;
      settings: () => ISettings;
      /** Emitted when the settings or the current notebook changed. */
      changed: ISignal<unknown, void>;
      translator: ITranslator;
    }
  ) {
    const { live, sessions, usage, clusters, changed, translator } = _options;
    super(translator, [
      live.changed,
      sessions.changed,
      usage.changed,
      clusters.changes.changed,
      changed
    ]);
    this.id = 'eaf-inference-panel';
    this.title.icon = tritonIcon;
    this.title.caption = this.trans.__('Triton: GPUs, models and queue');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', this.trans.__('Triton'));
  }

  protected override hold(isShown: boolean, wantsClusters: boolean): void {
    const { live, usage } = this._options;
    live.hold('panel', isShown);
    usage.hold('panel', isShown);
    live.wantClusters('panel', wantsClusters);
  }

  protected override content(): JSX.Element {
    const { live, sessions, usage, clusters, actions, settings } =
      this._options;
    const offer = actions.offer();
    return (
      <Content
        live={live}
        sessions={sessions}
        usage={usage.answer}
        clusters={clusters}
        actions={actions}
        settings={settings()}
        offer={offer && { label: offer.label, run: () => actions.connect() }}
      />
    );
  }
}

function Content(props: {
  live: LiveModel;
  sessions: SessionsModel;
  usage: IUsage | null;
  clusters: IClusterActions;
  actions: IPanelActions;
  settings: ISettings;
  offer: { label: string; run: () => void } | null;
}): JSX.Element {
  const trans = React.useContext(Language);
  const { live, sessions, usage, actions, settings, offer } = props;
  const { facility, snapshot, average } = live;
  const { sections } = settings;
  const sessionsNow = sessions.all;
  const outage = outageOf(sessionsNow, trans);
  const empty = emptyStateOf(facility, live.failure, sessionsNow, trans);
  const fresh = freshness(Date.now(), live, trans);
  const age = ageText(fresh, trans);
  const helpers = helpersOf(live, actions, offer, trans);
  const documentation = webUrl(facility?.documentation);
  const knownClusters = mergedClusters(
    live.clusters?.clusters ?? [],
    sessionsNow
  );
  const isShown = facility?.state === 'connected' && !empty;
  // without metrics, the section of the GPUs says so, and no figure has a period or an age
  const isMeasured = isShown && facility.metrics.configured;
  return (
    <>
      <Header
        facility={facility}
        fresh={fresh}
        replicas={snapshot?.instances.length ?? null}
        refresh={helpers.retry.run}
        dashboard={actions.dashboard}
      />
      {isShown && (outage ?? fresh.note) && (
        <p className="jp-EafInference-banner" role="status">
          {outage ?? fresh.note}
        </p>
      )}
      {empty && (
        <Empty
          state={empty}
          helpers={helpers}
          connectTo={actions.connect}
          attempts={facility?.attempts ?? []}
        />
      )}
      {isShown && (
        <div className={fresh.stale ? 'jp-mod-stale' : ''}>
          {sections.advice && isMeasured && live.advice && !fresh.stale && (
            <Advice advice={live.advice} />
          )}
          {sections.gpus && (
            <Gpus
              facility={facility}
              snapshot={average}
              points={live.points}
              window={settings.window}
              interval={live.interval}
              documentation={documentation ? helpers.documentation : null}
            />
          )}
          {sections.models && (
            <Models
              rows={modelRows(facility.models, average?.models ?? [])}
              window={isMeasured && average ? windowOf(average, trans) : null}
              actions={actions}
            />
          )}
        </div>
      )}
      {sections.clusters && (isShown || knownClusters.length > 0) && (
        <Clusters
          clusters={knownClusters}
          isKnown={live.clusters !== null}
          problem={live.clusters?.problem ?? null}
          actions={props.clusters}
        />
      )}
      {sections.notebooks && (isShown || sessionsNow.length > 0) && (
        <Notebooks
          notebooks={sessionsNow}
          facility={facility}
          connect={offer}
        />
      )}
      {sections.usage &&
        usage?.offered &&
        (isShown || usage.models.length > 0) && <Usage usage={usage} />}
      {isMeasured && age !== null && (
        <div className="jp-EafInference-footer">{age}</div>
      )}
    </>
  );
}

/** The buttons of an empty panel or dashboard. */
export function helpersOf(
  live: LiveModel,
  actions: IPanelActions,
  offer: { label: string; run: () => void } | null,
  trans: TranslationBundle
): Helpers {
  const documentation = webUrl(live.facility?.documentation);
  return {
    connect: offer ?? {
      label: trans.__('Connect a notebook'),
      run: actions.connect
    },
    retry: { label: trans.__('Try again'), run: () => void live.refresh() },
    documentation: {
      label: trans.__('Open the documentation'),
      run: () => documentation && actions.open(documentation)
    },
    reload: { label: trans.__('Reload'), run: actions.reload }
  };
}

function Header(props: {
  facility: IFacility | null;
  fresh: IFreshness;
  replicas: number | null;
  refresh: () => void;
  dashboard: () => void;
}): JSX.Element {
  const trans = React.useContext(Language);
  const { facility, fresh, replicas, refresh, dashboard } = props;
  const isConnected = facility?.state === 'connected';
  const url = facility?.endpoint?.url;
  const about = [
    facility?.user
      ? clip(facility.user, 60)
      : clip(facility?.identity ?? '', 80),
    facility?.user ? expiry(facility, Date.now(), trans) : null,
    isConnected && replicas !== null && replicas > 1
      ? trans.__('%1 replicas', replicas)
      : null
  ].filter(Boolean);
  return (
    <div className="jp-EafInference-header">
      <Health facility={facility} fresh={fresh} />
      <div>
        <h1 title={url ? clip(url, 300) : undefined}>
          {url ? hostOf(url) : trans.__('Triton')}
        </h1>
        {about.length > 0 && (
          <p className="jp-EafInference-parts">
            {about.map((each, index) => (
              <span key={index}>{each}</span>
            ))}
          </p>
        )}
      </div>
      <button
        type="button"
        className="jp-EafInference-iconButton"
        title={trans.__('Open the dashboard')}
        aria-label={trans.__('Open the dashboard')}
        onClick={dashboard}
      >
        <dashboardIcon.react tag="span" elementSize="normal" />
      </button>
      <button
        type="button"
        className="jp-EafInference-iconButton"
        title={trans.__('Refresh')}
        aria-label={trans.__('Refresh')}
        onClick={refresh}
      >
        <refreshIcon.react tag="span" elementSize="normal" />
      </button>
    </div>
  );
}

function Advice({ advice }: { advice: IAdvice }): JSX.Element {
  const level =
    advice.kind === 'failures'
      ? 'failing'
      : LIMITS.has(advice.kind)
        ? 'limit'
        : 'fine';
  return (
    <div className="jp-EafInference-advice" data-level={level}>
      <Remark>
        <strong>{clip(advice.title, 200)}</strong> {clip(advice.text, 600)}
      </Remark>
    </div>
  );
}
