/**
 * One tab of the dashboard: the whole service over time, or one part of it.
 */
import type { ITranslator } from '@jupyterlab/translation';
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
import { LiveWidget } from '../livewidget';
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
  /** Emitted when the current notebook changed. */
  changed: ISignal<unknown, void>;
  /** Open a view in its own tab. */
  open: (view: View) => void;
  translator: ITranslator;
}

export class Dashboard extends LiveWidget {
  constructor(
    readonly view: View,
    range: number,
    private readonly _options: IDashboardOptions
  ) {
    const { model, sessions, usage, changed, translator } = _options;
    super(translator, [
      model.changed,
      sessions.changed,
      usage.changed,
      changed
    ]);
    this._range = range;
    this.addClass('jp-EafInference-dashboard');
  }

  /** Seconds that the charts show. */
  get range(): number {
    return this._range;
  }
  set range(seconds: number) {
    if (seconds !== this._range) {
      this._range = seconds;
      this.holdAgain();
      this._rangeChanged.emit();
    }
  }

  get rangeChanged(): ISignal<this, void> {
    return this._rangeChanged;
  }

  protected override hold(isShown: boolean, wantsClusters: boolean): void {
    const { model, usage } = this._options;
    const holder = `dashboard ${this.view}`;
    const shows = (view: View) => this.view === 'all' || this.view === view;
    model.hold(holder, isShown ? this._range : null);
    usage.hold(holder, isShown && shows('usage'));
    model.live.wantClusters(holder, wantsClusters && shows('clusters'));
  }

  protected override content(): JSX.Element {
    return (
      <Content
        {...this._options}
        view={this.view}
        range={this._range}
        setRange={seconds => (this.range = seconds)}
      />
    );
  }

  private _range: number;
  private _rangeChanged = new Signal<this, void>(this);
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
  const fresh = freshness(Date.now(), live, trans);
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
              'The load is unknown: no metrics endpoint is configured for this facility.'
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
            window={isMeasured && average ? windowOf(average, trans) : null}
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
            trans.__('This facility does not record usage per user.'))
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
