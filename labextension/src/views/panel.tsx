/**
 * The sidebar: a header, then sections, or why there are none.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { refreshIcon } from '@jupyterlab/ui-components';
import { Message } from '@lumino/messaging';
import { ISignal } from '@lumino/signaling';
import React from 'react';

import type { IAdvice, IFacility, IUsage } from '../api';
import { dashboardIcon, tritonIcon } from '../icon';
import { mergedClusters } from '../models/clusters';
import { clip, duration, hostOf, webUrl } from '../models/format';
import { IFreshness, freshness } from '../models/freshness';
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
import { Health, Language, Remark } from './parts';
import { Usage } from './usage';

const LIMITS = new Set([
  'stuck',
  'idle GPU',
  'small batches',
  'server bound',
  'CPU bound',
  'client bound'
]);

export interface IPanelActions extends IModelActions {
  /** Connect the current notebook, or open one that is. */
  connect(url?: string): void;
  /** What `connect` would do now; null where the current notebook is connected. */
  offer(): { label: string } | null;
  open(url: string): void;
  /** Open the dashboard's tab. */
  dashboard(): void;
  reload(): void;
}

export class Panel extends ReactWidget {
  constructor(
    private readonly _options: {
      live: LiveModel;
      sessions: SessionsModel;
      usage: UsageModel;
      clusters: IClusterActions;
      actions: IPanelActions;
      settings: () => ISettings;
      /** When something else that is shown changed: settings, the current notebook. */
      changed: ISignal<unknown, void>;
      translator: ITranslator;
    }
  ) {
    super();
    const { live, sessions, usage, clusters, changed, translator } = _options;
    this._trans = translator.load('eaf_inference');
    this.id = 'eaf-inference-panel';
    this.addClass('jp-EafInference');
    this.title.icon = tritonIcon;
    this.title.caption = this._trans.__('Triton: GPUs, models and queue');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', this._trans.__('Triton'));
    this.node.tabIndex = -1;
    for (const model of [live, sessions, usage, clusters.changes]) {
      (model.changed as ISignal<unknown, void>).connect(this._show, this);
    }
    changed.connect(this._show, this);
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    document.addEventListener('visibilitychange', this._wish);
    this._look(this.isVisible);
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._look(true);
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._look(false);
  }

  protected override onBeforeDetach(message: Message): void {
    this._look(false);
    document.removeEventListener('visibilitychange', this._wish);
    super.onBeforeDetach(message);
  }

  protected override onActivateRequest(): void {
    this.node.focus();
  }

  protected render(): JSX.Element {
    const { live, sessions, usage, clusters, actions, settings } =
      this._options;
    const offer = actions.offer();
    return (
      <Language.Provider value={this._trans}>
        <Content
          live={live}
          sessions={sessions}
          usage={usage.answer}
          clusters={clusters}
          actions={actions}
          settings={settings()}
          offer={offer && { label: offer.label, run: () => actions.connect() }}
        />
      </Language.Provider>
    );
  }

  private _look(looks: boolean): void {
    this._looks = looks;
    this._wish();
    this._options.live.hold('panel', looks);
    this._options.usage.hold('panel', looks);
    this._show();
  }

  /** The user's gateway is left alone by a browser tab that nobody sees. */
  private readonly _wish = (): void => {
    this._options.live.wantClusters(
      'panel',
      this._looks && document.visibilityState === 'visible'
    );
  };

  private _show(): void {
    if (this.isVisible) {
      this.update();
    }
  }

  private _looks = false;
  private readonly _trans: TranslationBundle;
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
  const fresh = freshness(
    Date.now(),
    {
      heard: live.heard,
      measured: live.measured,
      sources: live.sources,
      stream: live.streamState,
      interval: live.interval
    },
    trans
  );
  const helpers = helpersOf(live, actions, offer, trans);
  const documentation = webUrl(facility?.documentation);
  const knownClusters = mergedClusters(
    live.clusters?.clusters ?? [],
    sessionsNow
  );
  const isShown = facility?.state === 'connected' && !empty;
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
          {sections.advice && live.advice && !fresh.stale && (
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
              window={average && windowOf(average, trans)}
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
      {isShown && fresh.age !== null && (
        <div className="jp-EafInference-footer">
          {fresh.stale
            ? trans.__('last updated %1 ago', duration(fresh.age))
            : fresh.age < 3
              ? trans.__('up to date')
              : trans.__('updated %1 ago', duration(fresh.age))}
        </div>
      )}
    </>
  );
}

/** What the buttons of an empty panel, or dashboard, do. */
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
      ? trans.__('%1 instances', replicas)
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
          <p>
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
        title={trans.__('Look again')}
        aria-label={trans.__('Look again')}
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
