/**
 * One tab of the dashboard: the whole service, or one side of it, over time.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { Message } from '@lumino/messaging';
import { ISignal, Signal } from '@lumino/signaling';
import React from 'react';

import type { IUsage } from '../../api';
import { mergedClusters } from '../../models/clusters';
import { DashboardModel, View } from '../../models/dashboard';
import { IFreshness, freshness } from '../../models/freshness';
import { modelRows } from '../../models/load';
import { emptyStateOf, outageOf } from '../../models/outage';
import { SessionsModel } from '../../models/sessions';
import { windowOf } from '../../models/status';
import { UsageModel } from '../../models/usage';
import { Clusters, IClusterActions } from '../clusters';
import { Empty } from '../empty';
import { Models } from '../models';
import { IPanelActions, helpersOf } from '../panel';
import { Language, Remark, Section } from '../parts';
import { Usage } from '../usage';
import { Processors, Queue, Rates } from './charts';
import { GpuTable } from './gputable';
import { Head } from './head';

export interface IDashboardOptions {
  model: DashboardModel;
  sessions: SessionsModel;
  usage: UsageModel;
  clusters: IClusterActions;
  actions: IPanelActions;
  /** When something else that is shown changed: the current notebook. */
  changed: ISignal<unknown, void>;
  /** Open a view as a tab of its own. */
  open: (view: View) => void;
  translator: ITranslator;
}

export class Dashboard extends ReactWidget {
  constructor(
    readonly view: View,
    range: number,
    private readonly _options: IDashboardOptions
  ) {
    super();
    const { model, sessions, usage, changed, translator } = _options;
    this._range = range;
    this._trans = translator.load('eaf_inference');
    this.addClass('jp-EafInference');
    this.addClass('jp-EafInference-dashboard');
    this.node.tabIndex = -1;
    for (const each of [model, sessions, usage]) {
      (each.changed as ISignal<unknown, void>).connect(this._show, this);
    }
    changed.connect(this._show, this);
  }

  /** Seconds that the charts show. */
  get range(): number {
    return this._range;
  }
  set range(seconds: number) {
    if (seconds !== this._range) {
      this._range = seconds;
      this._look(this._looks);
      this._rangeChanged.emit();
    }
  }

  get rangeChanged(): ISignal<this, void> {
    return this._rangeChanged;
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    document.addEventListener('visibilitychange', this._onVisibility);
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
    document.removeEventListener('visibilitychange', this._onVisibility);
    super.onBeforeDetach(message);
  }

  protected override onActivateRequest(): void {
    this.node.focus();
  }

  protected render(): JSX.Element {
    return (
      <Language.Provider value={this._trans}>
        <Content
          {...this._options}
          view={this.view}
          range={this._range}
          setRange={seconds => (this.range = seconds)}
        />
      </Language.Provider>
    );
  }

  private _look(looks: boolean): void {
    const { model, usage } = this._options;
    const who = `dashboard ${this.view}`;
    const shows = (view: View) =>
      looks && (this.view === 'all' || this.view === view);
    this._looks = looks;
    model.hold(who, looks ? this._range : null);
    usage.hold(who, shows('usage'));
    model.live.wantClusters(
      who,
      shows('clusters') && document.visibilityState === 'visible'
    );
    this._show();
  }

  private readonly _onVisibility = (): void => this._look(this._looks);

  private _show(): void {
    if (this.isVisible) {
      this.update();
    }
  }

  private _looks = false;
  private _range: number;
  private _rangeChanged = new Signal<this, void>(this);
  private readonly _trans: TranslationBundle;
}

interface IContent extends IDashboardOptions {
  view: View;
  range: number;
  setRange: (seconds: number) => void;
}

function Content(props: IContent): JSX.Element {
  const trans = React.useContext(Language);
  const { model, sessions, actions, view, range, setRange, open } = props;
  const { live } = model;
  const { facility, failure } = live;
  const outage = outageOf(sessions.all, trans);
  const empty = emptyStateOf(facility, failure, sessions.all, trans);
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
  const offered = actions.offer();
  const offer = offered && { label: offered.label, run: actions.connect };
  return (
    <>
      <Head
        facility={facility}
        fresh={fresh}
        view={view}
        range={range}
        setRange={setRange}
        open={open}
      />
      {!empty && (outage ?? fresh.note) && (
        <p className="jp-EafInference-banner" role="status">
          {outage ?? fresh.note}
        </p>
      )}
      {empty ? (
        <Empty
          state={empty}
          helpers={helpersOf(live, actions, offer, trans)}
          connectTo={actions.connect}
          attempts={facility?.attempts ?? []}
        />
      ) : (
        <div className="jp-EafInference-cards" data-view={view}>
          <Views {...props} fresh={fresh} />
        </div>
      )}
    </>
  );
}

function Views(props: IContent & { fresh: IFreshness }): JSX.Element {
  const trans = React.useContext(Language);
  const { model, sessions, usage, actions, view, range, fresh } = props;
  const { facility, average, clusters } = model.live;
  const plotted = {
    timeline: model.timeline(range),
    range,
    group: `eaf-inference ${view}`
  };
  const shows = (...views: View[]) => view === 'all' || views.includes(view);
  const isMeasured = facility?.metrics.configured;
  const grey = fresh.stale ? 'jp-mod-stale' : '';
  return (
    <>
      {shows('gpus', 'queue', 'models') && !isMeasured && (
        <Section name="metrics" title={trans.__('Server')}>
          <Remark>
            {trans.__(
              'Its load is not known: this facility does not say where its metrics are.'
            )}
          </Remark>
        </Section>
      )}
      {shows('gpus') && isMeasured && (
        <Card
          title={
            plotted.timeline.gpus.length ? trans.__('GPUs') : trans.__('Server')
          }
          className={grey}
        >
          <Processors {...plotted} snapshot={average} />
          {view === 'gpus' && average && <GpuTable gpus={average.gpus} />}
        </Card>
      )}
      {shows('queue') && isMeasured && (
        <Card title={trans.__('Queue')} className={grey}>
          <Queue {...plotted} />
        </Card>
      )}
      {shows('models') && (
        <Card title={trans.__('Throughput')} className={`jp-mod-wide ${grey}`}>
          {isMeasured && <Rates {...plotted} />}
          <Models
            rows={modelRows(facility?.models ?? [], average?.models ?? [])}
            window={average && windowOf(average, trans)}
            actions={actions}
          />
        </Card>
      )}
      {shows('clusters', 'usage') && (
        <div className="jp-EafInference-stack">
          {shows('clusters') && (
            <div className="jp-EafInference-card">
              <Clusters
                clusters={mergedClusters(
                  clusters?.clusters ?? [],
                  sessions.all
                )}
                isKnown={clusters !== null}
                problem={clusters?.problem ?? null}
                actions={props.clusters}
              />
            </div>
          )}
          {shows('usage') && (usage.answer?.offered || view === 'usage') && (
            <div className="jp-EafInference-card">
              <OwnUsage answer={usage.answer} />
            </div>
          )}
        </div>
      )}
    </>
  );
}

function OwnUsage({ answer }: { answer: IUsage | null }): JSX.Element {
  const trans = React.useContext(Language);
  return answer?.offered ? (
    <Usage usage={answer} />
  ) : (
    <Section name="usage" title={trans.__('My usage')}>
      <Remark>
        {answer
          ? (answer.problem ??
            trans.__('This facility does not count usage by user.'))
          : trans.__('Waiting for the first numbers…')}
      </Remark>
    </Section>
  );
}

function Card(props: {
  title: string;
  className: string;
  children: React.ReactNode;
}): JSX.Element {
  const id = React.useId();
  return (
    <section
      className={`jp-EafInference-card ${props.className}`}
      aria-labelledby={id}
    >
      <h2 id={id}>{props.title}</h2>
      <div>{props.children}</div>
    </section>
  );
}
